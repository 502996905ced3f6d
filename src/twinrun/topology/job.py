"""What the launcher's variables say of the job that this process belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from twinrun.env import variables as V


@dataclass(frozen=True, slots=True)
class Job:
    """The job as its launcher describes it; None where the launcher says nothing.

    ``nnodes`` nodes, this process on node ``node_rank`` of them, ``local_size`` processes on it,
    ``size`` in all, this one being ``rank``. ``address`` is the first node's host where the
    launcher lists the nodes.
    """

    launcher: str = "none"
    nnodes: int | None = None
    node_rank: int | None = None
    rank: int | None = None
    size: int | None = None
    local_size: int | None = None
    address: str | None = None
    job_id: int | None = None


def job(environ: Mapping[str, str]) -> Job:
    """The job of a process that runs the user's program: torchrun's word, else Slurm's, Open MPI's.

    torchrun inside ``srun`` describes its own workers, so it is asked first.
    """
    for told in (torchrun, slurm, open_mpi):
        found = told(environ)
        if found is not None:
            return found
    return Job(rank=V.RANK.get(environ), size=V.WORLD_SIZE.get(environ))


def torchrun(environ: Mapping[str, str]) -> Job | None:
    """What torchrun tells its workers, or None outside one."""
    size, local = V.WORLD_SIZE.get(environ), V.LOCAL_WORLD_SIZE.get(environ)
    if size is None or local is None:
        return None
    # A launch around a torchrun of its own may say less than torchrun does: the larger word counts.
    said = (V.NNODES.get(environ), V.GROUP_WORLD_SIZE.get(environ), -(-size // local))
    nodes = max(number for number in said if number is not None)
    return Job("torchrun", nodes, V.GROUP_RANK.get(environ), V.RANK.get(environ), size, local)


def slurm(environ: Mapping[str, str]) -> Job | None:
    """What Slurm tells the tasks of a step, or None outside a step.

    A batch script outside ``srun`` is not a step: it runs on the first node alone, whatever the
    allocation holds.
    """
    if V.SLURM_STEP_ID.get(environ) is None or V.SLURM_PROCID.get(environ) is None:
        return None
    nodes = V.SLURM_STEP_NUM_NODES.get(environ) or V.SLURM_NNODES.get(environ)
    size = V.SLURM_STEP_NUM_TASKS.get(environ) or V.SLURM_NTASKS.get(environ)
    hosts = V.SLURM_STEP_NODELIST.get(environ) or V.SLURM_JOB_NODELIST.get(environ)
    return Job(
        "slurm",
        nodes,
        V.SLURM_NODEID.get(environ),
        V.SLURM_PROCID.get(environ),
        size,
        None if nodes is None or size is None or size % nodes else size // nodes,
        None if hosts is None else first_host(hosts),
        V.SLURM_JOB_ID.get(environ),
    )


def open_mpi(environ: Mapping[str, str]) -> Job | None:
    """What Open MPI tells its processes, or None outside ``mpirun``."""
    size, local = V.OMPI_COMM_WORLD_SIZE.get(environ), V.OMPI_COMM_WORLD_LOCAL_SIZE.get(environ)
    if size is None or local is None:
        return None
    rank = V.OMPI_COMM_WORLD_RANK.get(environ)
    node = rank // local if rank is not None and size % local == 0 else None
    return Job("open_mpi", -(-size // local), node, rank, size, local)


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: ``gpu[03-05,11],cpu1`` -> ``gpu03``."""
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", _first_name(nodelist))


def _first_name(nodelist: str) -> str:
    depth = 0
    for place, letter in enumerate(nodelist):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            return nodelist[:place]
    return nodelist
