"""The arguments by themselves: numbers in range, an address that is one, a command."""

from __future__ import annotations

from pathlib import PurePath

from twinrun.env import variables as V
from twinrun.launch.address import parse_address
from twinrun.launch.args import AXES
from twinrun.launch.state import State

RULE = "launch.arguments"

BACKENDS = ("nccl", "gloo", "cpu:gloo,cuda:nccl", "mpi", "ucc", "xccl")
_COUNTS = ("nnodes", "nproc_per_node", *AXES)
_TIMES = ("rendezvous_timeout_s", "all_reduce_timeout_s")


def check_arguments(state: State) -> None:
    """Refuse every argument that is wrong by itself, and fill the node rank of a single node."""
    _check_numbers(state)
    _check_words(state)
    _check_nodes(state)
    _check_command(state)


def _check_command(state: State) -> None:
    command = state.args.command
    if not command:
        state.refuse(RULE, "no command was given", "put it after --, e.g. -- python train.py")
    elif [PurePath(command[0]).name, *command[1:2]] == ["twinrun", "run"]:
        do = "put it around the launch: twinrun run --out DIR -- twinrun launch ... -- CMD"
        state.refuse(RULE, "every rank would start a twinrun run of its own", do)


def _check_numbers(state: State) -> None:
    for name in (*_COUNTS, *_TIMES, "max_restarts"):
        value = getattr(state.args, name)
        if value is None or value >= 1 or (name == "max_restarts" and value == 0):
            continue
        if name in _TIMES and value > 0:
            continue
        least = "at least 0" if name == "max_restarts" else "above 0"
        state.refuse(RULE, f"{_flag(name)} is {value}", f"give a number {least}")


def _check_words(state: State) -> None:
    for name, variable in (("all_reduce", V.ALL_REDUCE), ("order", V.ALL_REDUCE_ORDER)):
        value = getattr(state.args, name)
        if value is None:
            continue
        try:
            variable.kind.parse(value)
        except ValueError as wanted:
            state.refuse(RULE, f"{_flag(name)} is {value!r}", f"give {wanted}")
    backend = state.args.backend
    if backend is not None and backend not in BACKENDS:
        state.refuse(RULE, f"--backend is {backend!r}", f"give one of {' '.join(BACKENDS)}")


def _check_nodes(state: State) -> None:
    args = state.args
    if args.dist_init_addr is not None:
        found = parse_address(args.dist_init_addr)
        if isinstance(found, str):
            state.refuse(RULE, f"--dist-init-addr {found}", "give node 0's, e.g. node0:29500")
    if args.nodes > 1 and args.dist_init_addr is None:
        do = "give --dist-init-addr HOST:PORT of node 0, the same on every node"
        state.refuse(RULE, f"{args.nodes} nodes have no address to meet at", do)
    _check_node_rank(state)


def _check_node_rank(state: State) -> None:
    args = state.args
    if args.node_rank is None:
        if args.nodes > 1:
            do = f"give each node its own --node-rank, from 0 to {args.nodes - 1}"
            state.refuse(RULE, f"{args.nodes} nodes, but not which one this is", do)
        return
    if not 0 <= args.node_rank < max(1, args.nodes):
        do = f"give each node its own --node-rank, from 0 to {max(1, args.nodes) - 1}"
        state.refuse(RULE, f"--node-rank is {args.node_rank} of {args.nodes} nodes", do)


def _flag(name: str) -> str:
    return "--" + name.removesuffix("_s").replace("_", "-")
