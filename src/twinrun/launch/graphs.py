"""The variables that a captured graph sees: settled last, from the final environment."""

from __future__ import annotations

from twinrun.env import Origin
from twinrun.env import variables as V
from twinrun.launch.state import State

RULE = "launch.cuda_graph"


def settle_graphs(state: State) -> None:
    """Let captured all-reduces read their inputs in place only where one in-node backend is left.

    A graph keeps what it was captured with: a variable that changed after this rule would hold
    for eager calls and not for replays, so no rule comes after it.
    """
    variable = V.ALL_REDUCE_GRAPH_INPUTS
    if not V.CUDA_GRAPH.get(state.environ):
        return
    in_node = [
        each.name for each in (V.SYMMETRIC_ALL_REDUCE, V.IPC_ALL_REDUCE) if each.get(state.environ)
    ]
    if in_node or not variable.get(state.environ):
        state.decide(RULE, "debug", f"{variable.name} stays {_word(variable.get(state.environ))}")
        return
    state.write(variable, False, Origin("rule", RULE))
    state.decide(RULE, "debug", f"{variable.name} is set to 0: no in-node all-reduce is left")


def _word(on: bool) -> str:
    return "on" if on else "off"
