"""Where a thread stands: the modules it is inside of, and what it recorded there."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from twinrun.recorder.roots import Entry


@dataclass(slots=True, eq=False)
class OpenCall:
    """One observed call of a module, from its entry to its return.

    ``call`` is the root's call that it belongs to, ``begun`` the tick at its entry. ``visible`` are
    the records that code in this call could compute from: its inputs, and what it called gave back.
    """

    entry: Entry
    begun: int
    call: int
    recompute: bool
    visible: list[int] = field(default_factory=list)


class Scene(threading.local):
    """Per thread: the stack of modules that are being called, and the observed calls among them.

    ``outside`` are the records that code between root calls could compute from.
    """

    def __init__(self) -> None:
        self.stack: list[Entry] = []
        self.calls: list[OpenCall] = []
        self.outside: tuple[int, ...] = ()

    def visible(self) -> tuple[int, ...]:
        """What a tensor that left no trace may have been computed from, here."""
        return tuple(self.calls[-1].visible) if self.calls else self.outside
