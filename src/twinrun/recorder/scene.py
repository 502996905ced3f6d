"""Where a thread stands: the modules it is inside of, and what it recorded there."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twinrun.recorder.flow import UNKNOWN
from twinrun.recorder.record import Tag
from twinrun.recorder.roots import Entry


@dataclass(slots=True, eq=False)
class Sight:
    """The records that code in one call could compute from: its inputs, and what it called gave back.

    ``untraced`` are those among ``visible`` that an autograd graph does not show.
    """

    visible: list[int] = field(default_factory=list)
    untraced: list[int] = field(default_factory=list)

    def sees(self, number: int, traced: bool) -> None:
        """A record came into sight."""
        self.visible.append(number)
        if not traced:
            self.untraced.append(number)


@dataclass(slots=True, eq=False)
class OpenCall:
    """One observed call of a module, from its entry to its return.

    ``call`` is the root's call that it belongs to, ``begun`` the tick at its entry. ``tags``: for some
    ports, what interceptors add to their records.
    """

    entry: Entry
    begun: int
    call: int
    recompute: bool
    sight: Sight = field(default_factory=Sight)
    tags: dict[str, Mapping[str, Tag]] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What every record that is made of this call says of where it belongs: for ``Recorder.observe``."""
        entry = self.entry
        return {
            "module": entry.module,
            "module_class": entry.class_name,
            "root": entry.root.index,
            "call": self.call,
            "mesh": entry.root.mesh,
        }


class Scene(threading.local):
    """Per thread: the stack of modules that are being called, and the observed calls among them.

    ``outside`` is what the code around all observed calls sees: between root calls, and inside
    modules without taps. ``before`` says how much of it was there when the present root began.
    """

    def __init__(self) -> None:
        self.stack: list[Entry] = []
        self.calls: list[OpenCall] = []
        self.outside = Sight()
        if threading.current_thread() is not threading.main_thread():
            # What another thread recorded may have reached this one.
            self.outside.sees(UNKNOWN, traced=False)
        self.before = (0, 0)

    @property
    def here(self) -> Sight:
        """What code running now can see."""
        return self.calls[-1].sight if self.calls else self.outside

    def root_begins(self) -> None:
        """An outermost module is entered: remember what was in sight outside of it."""
        sight = self.outside
        self.before = (len(sight.visible), len(sight.untraced))

    def root_ended(self) -> None:
        """It has returned: what it gave is in sight now, what earlier ones gave is not."""
        sight, (visible, untraced) = self.outside, self.before
        if len(sight.visible) > visible:
            del sight.visible[:visible]
            del sight.untraced[:untraced]
