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
    ``untraced`` are those among them that an autograd graph does not show.
    """

    entry: Entry
    begun: int
    call: int
    recompute: bool
    visible: list[int] = field(default_factory=list)
    untraced: list[int] = field(default_factory=list)

    def sees(self, number: int, traced: bool) -> None:
        """A record became visible here."""
        self.visible.append(number)
        if not traced:
            self.untraced.append(number)


class Scene(threading.local):
    """Per thread: the stack of modules that are being called, and the observed calls among them.

    ``outside`` is the last root call's stand-in: what code between root calls could compute from.
    """

    def __init__(self) -> None:
        self.stack: list[Entry] = []
        self.calls: list[OpenCall] = []
        self.outside: OpenCall | None = None

    @property
    def here(self) -> OpenCall | None:
        """The call that code running now stands in, or what stands in for it between root calls."""
        return self.calls[-1] if self.calls else self.outside
