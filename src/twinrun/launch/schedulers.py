"""Slurm's and Open MPI's variables as defaults of a launch: one ``twinrun launch`` a node."""

from __future__ import annotations

from twinrun.launch.address import render_address
from twinrun.launch.state import State
from twinrun.topology.job import Job, open_mpi, slurm

RULE = "launch.scheduler"

# Ports from here on, by job number, so that two jobs that meet on one host take different ones.
_FIRST_PORT, _PORTS = 29500, 1000


def read_scheduler(state: State) -> None:
    """Fill what was not said from the scheduler's step, and refuse what contradicts it."""
    told = slurm(state.environ) or open_mpi(state.environ)
    if told is None or told.nnodes is None or told.node_rank is None:
        return
    name = told.launcher.replace("_", " ")
    if told.size is not None and told.size > told.nnodes:
        state.refuse(
            RULE,
            f"{name} starts {told.size} tasks on {told.nnodes} nodes",
            "start one twinrun launch a node (--ntasks-per-node 1, or mpirun --map-by ppr:1:node)",
        )
        return
    _fill(state, told, name)
    _refuse_one_rank_for_all(state, told, name)


def _refuse_one_rank_for_all(state: State, told: Job, name: str) -> None:
    given = state.args.node_rank
    if given is not None and given != told.node_rank and state.args.nodes > 1:
        state.refuse(
            RULE,
            f"--node-rank {given} on {name}'s node {told.node_rank}: every node is given the same "
            "number, so that node ranks are duplicate",
            f"leave --node-rank out ({name} numbers its nodes)",
        )


def _fill(state: State, told: Job, name: str) -> None:
    args = state.args
    if args.nnodes is None:
        state.adjust(RULE, "info", f"--nnodes {told.nnodes} from {name}", nnodes=told.nnodes)
    if state.args.nodes == 1:
        return
    if args.node_rank is None:
        text = f"--node-rank {told.node_rank} from {name}"
        state.adjust(RULE, "info", text, node_rank=told.node_rank)
    if args.dist_init_addr is None and told.address is not None:
        address = render_address(told.address, _FIRST_PORT + (told.job_id or 0) % _PORTS)
        text = f"--dist-init-addr {address} from {name}'s first host and job number"
        state.adjust(RULE, "info", text, dist_init_addr=address)
