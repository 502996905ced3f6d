"""What the ranks' all-reduces are told: backend, order, the guard, no multicast."""

from __future__ import annotations

from typing import Any

from twinrun.env import Origin, Variable
from twinrun.env import variables as V
from twinrun.launch import guard
from twinrun.launch.state import State

MULTICAST_RULE = "launch.no_multicast"
NODES_RULE = "launch.nodes"

# A flag of the launch and the variable that carries it to every rank.
_CARRIED: tuple[tuple[str, str, Variable[Any, Any]], ...] = (
    ("all_reduce", "--all-reduce", V.ALL_REDUCE),
    ("order", "--order", V.ALL_REDUCE_ORDER),
    ("deterministic", "--deterministic", V.DETERMINISTIC),
    ("keep_in_node_all_reduce", "--keep-in-node-all-reduce", V.KEEP_IN_NODE_ALL_REDUCE),
    ("all_reduce_timeout_s", "--all-reduce-timeout", V.ALL_REDUCE_TIMEOUT_S),
    ("cuda_graph", "--cuda-graph", V.CUDA_GRAPH),
)


def settle_collectives(state: State) -> None:
    """Carry the flags to every rank, then apply the guard to what they leave."""
    refused = {problem.seen.split(" ")[0] for problem in state.problems}
    for name, flag, variable in _CARRIED:
        value = getattr(state.args, name)
        if value is not None and flag not in refused:
            state.write(variable, value, Origin("flag", flag))
    _apply_guard(state)
    _forbid_multicast(state)
    if state.args.nodes >= 1:
        state.write(V.NNODES, state.args.nodes, Origin("rule", NODES_RULE))


def _apply_guard(state: State) -> None:
    keep = V.KEEP_IN_NODE_ALL_REDUCE.get(state.environ)
    forced, decision = guard.in_node_only(state.args.nodes, keep, state.environ)
    if forced:
        state.write(V.SYMMETRIC_ALL_REDUCE, False, Origin("rule", guard.RULE))
    if decision is not None:
        state.decisions.append(decision)


def _forbid_multicast(state: State) -> None:
    """torch's rendezvous makes an NVLink multicast object unless it is told not to."""
    variable = V.TORCH_SYMM_MEM_DISABLE_MULTICAST
    if not V.SYMMETRIC_ALL_REDUCE.get(state.environ) or variable.get(state.environ):
        return
    if variable.is_set(state.environ):
        do = f"unset {variable.name}, or set TWINRUN_SYMMETRIC_ALL_REDUCE=0"
        state.refuse(MULTICAST_RULE, f"{variable.name} is set to 0", do)
        return
    state.write(variable, True, Origin("rule", MULTICAST_RULE))
    text = f"{variable.name} is set to 1: Twinrun never uses NVLink multicast"
    state.decide(MULTICAST_RULE, "debug", text)
