"""Where in a program a value was seen, and what stands at the other end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from twinrun.errors import TwinrunError
from twinrun.grafting.giving import Given, Parcel
from twinrun.grafting.point import Holding, Point
from twinrun.grafting.receiving import Taken


@dataclass(frozen=True, slots=True)
class Site:
    """Where in the program a value was seen; what filters and layouts go by.

    ``step`` counts ``tr.step()`` calls, or calls of the outermost module while there are none.
    ``recompute``: activation checkpointing runs a forward again.
    """

    name: str
    step: int
    kind: str = "activation"
    role: str = "dump"
    module: str = ""
    module_class: str = ""
    dims: str = ""
    mesh: Mapping[str, tuple[int, int]] | None = None
    tags: tuple[tuple[str, Any], ...] = ()
    recompute: bool = False
    call: int = -1
    """at a module's boundary, which call of its root this is"""


class Source(Protocol):
    """Where values come from and go to: a live exchange, or a capture."""

    failure: TwinrunError | None

    def give(self, point: Point, holding: Holding, parcel_of: Callable[[int], Parcel]) -> Given: ...

    def take(self, point: Point, holding: Holding, *, whole: bool = False) -> Taken: ...

    def begin(self, step: int) -> None: ...

    def layouts(self, point: Point, senders: tuple[int, ...]) -> list[Holding]: ...

    def world(self, role: str) -> int: ...

    def tell_failed(self, point: Point, why: str) -> None: ...

    def close(self, why: str = "finished", *, drain: bool = True) -> None: ...

    def abandon(self) -> None: ...
