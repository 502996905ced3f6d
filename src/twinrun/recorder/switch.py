"""Which Recorder receives what is observed: one global read on every call of ``dump``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twinrun.recorder.core import Recorder


class _Switch:
    """``recorder`` is the innermost open one; a plain attribute, so that reading it costs nothing."""

    __slots__ = ("outer", "recorder")

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.outer: list[Recorder] = []


SWITCH = _Switch()


def active() -> Recorder | None:
    """The Recorder that receives observations now, or None while nothing is recorded."""
    return SWITCH.recorder


def activate(recorder: Recorder) -> None:
    """Make it the receiver; the one before it waits underneath."""
    if SWITCH.recorder is not None:
        SWITCH.outer.append(SWITCH.recorder)
    SWITCH.recorder = recorder


def deactivate(recorder: Recorder | None = None) -> None:
    """Take ``recorder``, or the innermost, off the stack."""
    if recorder is None or recorder is SWITCH.recorder:
        SWITCH.recorder = SWITCH.outer.pop() if SWITCH.outer else None
    elif recorder in SWITCH.outer:
        SWITCH.outer.remove(recorder)
