"""Tags that hold for a block of code: nested, per thread and per task, restored at its end."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType

import torch

from twinrun.recorder.record import Tag

_NONE: Mapping[str, Tag] = MappingProxyType({})
_OPEN: ContextVar[Mapping[str, Tag]] = ContextVar("twinrun_tags", default=_NONE)


def current_tags() -> Mapping[str, Tag]:
    """The tags of every ``tags()`` block that is open here, inner ones first to win."""
    return _OPEN.get()


class tags:
    """Add tags to every record made inside the block; an outer block's come back at its end.

    Inside code that torch.compile traces it does nothing, so that the graph stays whole.
    """

    __slots__ = ("_added", "_tokens")

    def __init__(self, **added: Tag) -> None:
        self._added = added
        self._tokens: list[Token[Mapping[str, Tag]]] = []

    def __enter__(self) -> None:
        if not torch.compiler.is_compiling():
            merged = {**_OPEN.get(), **self._added}
            self._tokens.append(_OPEN.set(MappingProxyType(merged)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not torch.compiler.is_compiling():
            _OPEN.reset(self._tokens.pop())
