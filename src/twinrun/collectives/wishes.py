"""What an ``AllReduce`` was asked for: by its arguments, else by variables. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from twinrun.env import Variable
from twinrun.env import variables as V
from twinrun.errors import UsageError
from twinrun.launch import guard
from twinrun.launch.conflicts import refuse_conflicts
from twinrun.launch.wants import Wants

_SWITCHES: tuple[tuple[str, Variable[bool, bool]], ...] = (
    ("symmetric", V.SYMMETRIC_ALL_REDUCE),
    ("ipc", V.IPC_ALL_REDUCE),
    ("shared_memory", V.SHARED_MEMORY_ALL_REDUCE),
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """Backend, order and switches, equal on every rank of a group or the ranks refuse to go on."""

    backend: str
    order: str
    order_asked: bool
    deterministic: bool
    keep_in_node: bool
    graph_inputs: bool
    check: bool
    off: tuple[tuple[str, str], ...]

    def compared(self) -> dict[str, Any]:
        """What the ranks must have alike: who switched a backend off may differ, not that it is."""
        return {**asdict(self), "off": [backend for backend, _ in self.off]}


def read_wishes(
    order: str | None, backend: str | None, deterministic: bool | None, environ: Mapping[str, str]
) -> Wishes:
    """What the arguments ask for, and the variables where they say nothing; ``UsageError``."""
    wishes = Wishes(
        backend=_word("backend", backend, V.ALL_REDUCE, environ),
        order=_word("order", order, V.ALL_REDUCE_ORDER, environ),
        order_asked=order is not None or V.ALL_REDUCE_ORDER.is_set(environ),
        deterministic=V.DETERMINISTIC.get(environ) if deterministic is None else deterministic,
        keep_in_node=V.KEEP_IN_NODE_ALL_REDUCE.get(environ),
        graph_inputs=V.ALL_REDUCE_GRAPH_INPUTS.get(environ),
        check=V.ALL_REDUCE_CHECK.get(environ),
        off=switched_off(environ),
    )
    refuse_conflicts(
        Wants(all_reduce=wishes.backend, order=wishes.order, deterministic=wishes.deterministic)
    )
    return wishes


def switched_off(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The backends that a variable switches off, each with the variable and who set it."""
    return tuple(
        (backend, _why_off(variable, environ))
        for backend, variable in _SWITCHES
        if not variable.get(environ)
    )


def _why_off(variable: Variable[bool, bool], environ: Mapping[str, str]) -> str:
    origin = variable.source(environ)
    if origin.kind == "rule" and origin.detail == guard.RULE:
        return why_in_node_only(V.NNODES.get(environ))
    return f"{variable.name} = 0   {origin}"


def why_in_node_only(nodes: int | None) -> str:
    """The guard's reason, as a plan gives it."""
    told = "several" if nodes is None else nodes
    return f"the job spans {told} nodes (symmetric memory reaches one node)   rule {guard.RULE}"


def _word(
    what: str, given: str | None, variable: Variable[str, str], environ: Mapping[str, str]
) -> str:
    if given is None:
        return variable.get(environ)
    try:
        return variable.kind.parse(given)
    except ValueError as wanted:
        raise UsageError(f"{what} {given!r} is unknown.", expected=str(wanted)) from None
