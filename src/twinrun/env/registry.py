"""The table of declared variables, filled by ``variables.py`` when it is imported."""

from __future__ import annotations

from typing import Any, TypeVar

from twinrun.env.kinds import Kind
from twinrun.env.variable import Variable

T = TypeVar("T")
D = TypeVar("D")

_DECLARED: dict[str, Variable[Any, Any]] = {}


def declare(
    name: str, kind: Kind[T], default: D, *, room: str, help: str, unit: str = ""
) -> Variable[T, D]:
    """Declare one variable; a name is declared once."""
    assert name not in _DECLARED, f"{name} is declared twice"
    variable = Variable(name, kind, default, room, help, unit)
    _DECLARED[name] = variable
    return variable


def declared() -> dict[str, Variable[Any, Any]]:
    """Every declared variable by name, in the order of their rows."""
    from twinrun.env import variables  # noqa: F401 - importing it is what fills the table

    return dict(_DECLARED)
