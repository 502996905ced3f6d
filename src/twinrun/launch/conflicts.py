"""Pairs of options that cannot work together. Adding a conflict is adding a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twinrun.errors import LaunchError
from twinrun.launch.wants import Wants

RULE = "launch.conflicts"
_HOST_BACKENDS = ("gloo", "shared_memory")


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two options, when they are both there, why they cannot be, and the way out."""

    first: str
    second: str
    meets: Callable[[Wants], bool]
    because: str
    do: str

    def __str__(self) -> str:
        return f"{self.first} cannot go with {self.second}: {self.because}"


def _reaches_out(wants: Wants) -> bool:
    if wants.nodes <= 1:
        return False
    return wants.tensor_groups_span_nodes or not wants.keep_in_node


def _same_filter(wants: Wants) -> bool:
    first, second = (" ".join(text.split()) for text in (wants.observers.b2t, wants.observers.t2b))
    return bool(first) and first == second


CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        "--all-reduce symmetric", "a group that spans nodes",
        lambda w: w.all_reduce == "symmetric" and _reaches_out(w),
        "symmetric memory reaches one node only",
        "leave --all-reduce out (groups across nodes then take nccl), or keep tensor-parallel "
        "groups inside a node and give --keep-in-node-all-reduce",
    ),
    Conflict(
        "--all-reduce ipc", "a group that spans nodes",
        lambda w: w.all_reduce == "ipc" and w.tensor_groups_span_nodes,
        "CUDA IPC handles reach one node only",
        "leave --all-reduce out: groups inside a node still take ipc",
    ),
    Conflict(
        "--all-reduce shared_memory", "a group that spans nodes",
        lambda w: w.all_reduce == "shared_memory" and w.tensor_groups_span_nodes,
        "processes of two nodes share no memory",
        "leave --all-reduce out: groups inside a node still take shared_memory",
    ),
    Conflict(
        "--deterministic", "--order any",
        lambda w: w.deterministic and w.order == "any",
        "any order is whatever is fastest, so that sums may differ from run to run",
        "use --order ranks or --order tree, or leave --deterministic out",
    ),
    Conflict(
        "--deterministic", "--all-reduce aiter",
        lambda w: w.deterministic and w.all_reduce == "aiter",
        "aiter does not sum in a stated order",
        "leave --all-reduce out: an all-gather and an ordered sum are used",
    ),
    Conflict(
        "--cuda-graph", "--mode values",
        lambda w: w.cuda_graph and w.observers.mode == "values",
        "a tap that copies values to the host cannot run inside a captured graph",
        "observe without --cuda-graph (eager), or observe --mode stats",
    ),
    Conflict(
        "--cuda-graph", "--backend gloo",
        lambda w: w.cuda_graph and (w.backend == "gloo" or w.all_reduce in _HOST_BACKENDS),
        "a collective that runs on the host cannot be captured",
        "use --backend nccl, or leave --cuda-graph out",
    ),
    Conflict(
        "--all-reduce nccl", "--backend gloo",
        lambda w: w.all_reduce == "nccl" and w.backend == "gloo",
        "a gloo group has no NCCL communicator",
        "use --backend nccl, or leave --all-reduce out",
    ),
    Conflict(
        "a live graft (--graft-address)", "an offline graft (--from)",
        lambda w: bool(w.observers.live_graft and w.observers.offline_graft),
        "a point would get its value from two baselines",
        "give one of the two",
    ),
    Conflict(
        "--b2t", "--t2b with the same filter",
        _same_filter,
        "every point that matches would have to flow both ways",
        "narrow one of the filters so that no point matches both",
    ),
)  # fmt: skip


def met(wants: Wants) -> tuple[Conflict, ...]:
    """Every conflict that these wants run into."""
    return tuple(row for row in CONFLICTS if row.meets(wants))


def refuse_conflicts(wants: Wants) -> None:
    """Raise one ``LaunchError`` for all conflicts; for commands other than ``launch``."""
    found = met(wants)
    if not found:
        return
    raise LaunchError(
        "; ".join(str(row) for row in found) + ".",
        do="; ".join(row.do for row in found),
    )
