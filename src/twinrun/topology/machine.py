"""Everything that can be learnt of this machine without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from twinrun.env import variables as V
from twinrun.topology import driver_files, nvml
from twinrun.topology.allocator import expandable_segments
from twinrun.topology.container import container
from twinrun.topology.fact import Fact
from twinrun.topology.gpus import Gpus
from twinrun.topology.job import Job, job
from twinrun.topology.memory import shared_bytes
from twinrun.topology.node import NodeIdentity, identity
from twinrun.topology.visible import Visible, visible


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine as one process finds it; every absence is a fact with its reason."""

    node: NodeIdentity
    job: Job
    cpus: Fact[int]
    gpus: Gpus
    visible: Visible
    shared_bytes: Fact[int | None]
    container: Fact[str]
    expandable_segments: Fact[bool]


def machine(environ: Mapping[str, str], root: Path = Path("/")) -> Machine:
    """Look at this machine. Raises nothing for what is merely absent."""
    told = job(environ)
    gpus = find_gpus(root)
    return Machine(
        node=identity(environ, told, root),
        job=told,
        cpus=_cpus(),
        gpus=gpus,
        visible=visible(V.CUDA_VISIBLE_DEVICES.get(environ), gpus.gpus),
        shared_bytes=shared_bytes(root / "dev/shm"),
        container=container(root),
        expandable_segments=expandable_segments(environ),
    )


def find_gpus(root: Path = Path("/")) -> Gpus:
    """The GPUs from the first source that answers, or none with every place looked."""
    loaded = nvml.load()
    if not isinstance(loaded, str):
        return nvml.query(loaded)
    looked = [loaded]
    for source in (driver_files.nvidia, driver_files.amd):
        found = source(root)
        if not isinstance(found, str):
            return Gpus(found.gpus, vendor=found.vendor, how=found.how, missing=tuple(looked))
        looked.append(found)
    return Gpus(how="nothing answered", missing=tuple(looked))


def _cpus() -> Fact[int]:
    if hasattr(os, "sched_getaffinity"):
        return Fact(len(os.sched_getaffinity(0)), "this process's affinity")
    return Fact(os.cpu_count() or 1, "os.cpu_count")
