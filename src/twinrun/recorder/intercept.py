"""The seam where another room may put its own tensors through a module's boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twinrun.recorder.scene import OpenCall


class Interceptor(Protocol):
    """Takes what passes a boundary and gives what shall pass instead.

    ``phase`` is ``input`` (``tree`` is the pair of positional and keyword arguments) or ``output``.
    The observed value is the one after every interceptor. What it raises reaches the program.
    """

    def __call__(self, call: OpenCall, phase: str, tree: Any) -> Any: ...


class Surround(Protocol):
    """Gives what shall be called in the place of ``original``, between the two phases of a call.

    What it raises reaches the program.
    """

    def __call__(self, call: OpenCall, original: Callable[..., Any]) -> Callable[..., Any]: ...


interceptors: list[Interceptor] = []
"""In the order in which they are asked; while it holds any, modules without taps pass through too."""

surrounds: list[Surround] = []
"""The last one is outermost; only calls that interceptors are asked about are surrounded."""
