"""The guard: the symmetric-memory all-reduce reaches one node, so several nodes go without it."""

from __future__ import annotations

from collections.abc import Mapping

from twinrun.env import variables as V
from twinrun.launch.decision import Decision

RULE = "launch.in_node_only"


def in_node_only(
    nnodes: int, keep: bool, environ: Mapping[str, str]
) -> tuple[bool, Decision | None]:
    """Whether ``TWINRUN_SYMMETRIC_ALL_REDUCE`` must be forced to 0, and what to say of it.

    With one node there is nothing to decide. With several it is forced off for every process; a
    warning only where the user had set it on, since whoever said nothing loses nothing that they
    asked for. With ``keep`` (``--keep-in-node-all-reduce``) it stays on, and the plan declines it
    for the groups that span nodes.
    """
    variable = V.SYMMETRIC_ALL_REDUCE
    if nnodes <= 1:
        return False, None
    if not variable.get(environ):
        origin = variable.source(environ)
        return False, Decision(RULE, "debug", f"{variable.name} is off already: {origin}")
    reason = f"{nnodes} nodes, and symmetric memory reaches one node only"
    if keep:
        text = f"{variable.name} stays on for groups inside one node ({reason})"
        return False, Decision(RULE, "debug", text)
    if variable.is_set(environ):
        text = f"you set {variable.name} on; it is forced to 0: {reason}"
        return True, Decision(RULE, "warning", text)
    return True, Decision(RULE, "debug", f"{variable.name} is set to 0: {reason}")
