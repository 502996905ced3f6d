"""What runs aside of the program: neither its modules nor its dumps are observed or grafted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import nn

    from twinrun.recorder.roots import Entry
    from twinrun.recorder.scene import Scene


class _Standing(threading.local):
    on = False


_standing = _Standing()


def is_aside() -> bool:
    """Whether this thread runs something that is no part of the program."""
    return _standing.on


@contextmanager
def aside(scene: Scene) -> Iterator[None]:
    """A block of this thread whose calls pass every boundary unseen; blocks may nest."""
    before, stack = _standing.on, scene.stack
    depth = len(stack)
    stack.append(cast("Entry", _Unseen()))
    _standing.on = True
    try:
        yield
    finally:
        _standing.on = before
        del stack[depth:]


class _Unseen:
    """Stands on the stack of calls where an entry would: every module below it is itself.

    The observer calls what is its caller's own wrapper straight through; so it does with these.
    """

    module = ""

    @property
    def root(self) -> _Unseen:
        return self

    def entry(self, module: nn.Module) -> _Unseen:
        return self
