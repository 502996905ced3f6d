"""A block around work of ours inside the program."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class Guard:
    """Asks ``broke`` whether the program shall be spared an error; see ``Session.guarding``."""

    __slots__ = ("_broke",)

    def __init__(self, broke: Callable[[BaseException], bool]) -> None:
        self._broke = broke

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return error is not None and self._broke(error)
