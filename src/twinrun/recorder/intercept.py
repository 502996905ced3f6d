"""The seam where another room may put its own tensors in the place of the program's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twinrun.recorder.record import Tag
from twinrun.recorder.roots import Root
from twinrun.recorder.scene import OpenCall


class Interceptor(Protocol):
    """Takes what passes a boundary and gives what shall pass instead.

    ``phase`` is ``input`` (``tree`` is the pair of positional and keyword arguments) or ``output``.
    The observed value is the one after every interceptor; what it puts into ``call.tags`` by port is
    added to that value's record. What it raises reaches the program.
    """

    def __call__(self, call: OpenCall, phase: str, tree: Any) -> Any: ...


class Surround(Protocol):
    """Gives what shall be called in the place of ``original``, between the two phases of a call.

    What it raises reaches the program.
    """

    def __call__(self, call: OpenCall, original: Callable[..., Any]) -> Callable[..., Any]: ...


class DumpInterceptor(Protocol):
    """May overwrite in place what the program dumps; gives tags to add to the record.

    What it raises reaches the program.
    """

    def __call__(
        self, name: str, tensor: object, dims: str | None, tags: Mapping[str, Tag]
    ) -> Mapping[str, Tag]: ...


interceptors: list[Interceptor] = []
"""In the order in which they are asked; while it holds any, modules without taps pass through too."""

surrounds: list[Surround] = []
"""The last one is outermost; only calls that interceptors are asked about are surrounded."""

beginnings: list[Callable[[Root], None]] = []
"""Told of each call of a root that begins, after the step was counted and before its parameters are
recorded. What they raise reaches the program."""
