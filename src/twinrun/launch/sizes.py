"""The sizes of the parallel axes against the number of ranks."""

from __future__ import annotations

from math import prod

from twinrun.launch.state import State

RULE = "launch.sizes"

_GRID = ("tp", "cp", "pp", "dp")


def check_sizes(state: State) -> None:
    """``tp * cp * pp * dp`` is the number of ranks; a ``dp`` left out is what remains.

    ``ep`` is laid over the ranks of one pipeline stage, so it divides them.
    """
    axes = state.args.axes
    if any(size < 1 for size in axes.values()) or state.args.ranks < 1:
        return  # launch.arguments has refused them
    if axes:
        _fill_data_parallel(state)
        _check_grid(state)
        _check_experts(state)


def _fill_data_parallel(state: State) -> None:
    known = prod(state.args.axes.get(axis, 1) for axis in _GRID)
    if state.args.dp is None and state.args.ranks % known == 0:
        dp = state.args.ranks // known
        state.adjust(RULE, "debug", f"dp is {dp}: what the other axes leave of the ranks", dp=dp)


def _check_grid(state: State) -> None:
    args = state.args
    given = {axis: size for axis, size in args.axes.items() if axis in _GRID}
    told = " * ".join(f"{axis} {size}" for axis, size in given.items()) or "1"
    if prod(given.values()) == args.ranks and args.dp is not None:
        return
    relation = "is not" if args.dp is not None else "does not divide"
    state.refuse(
        RULE,
        f"{told} = {prod(given.values())} {relation} the {args.ranks} ranks "
        f"({args.nodes} nodes of {args.ranks_per_node})",
        "change the sizes, --nnodes or --nproc-per-node",
    )


def _check_experts(state: State) -> None:
    args = state.args
    stage = args.ranks // (args.pp or 1)
    if args.ep is not None and (stage == 0 or stage % args.ep):
        seen = f"ep {args.ep} does not divide the {stage} ranks of a pipeline stage"
        state.refuse(RULE, seen, "choose an ep that divides ranks / pp")
