"""Ends of a process: sealing at its exit, and starting afresh in a forked child."""

from __future__ import annotations

import atexit
import os
import weakref
from multiprocessing import util
from typing import Protocol


class Closable(Protocol):
    """What a process's end and a fork need to reach."""

    def close(self) -> None:
        """Seal and end."""

    def start_afresh(self) -> None:
        """In a forked child: forget the parent's files, buffer and thread."""


_OPEN: weakref.WeakSet[Closable] = weakref.WeakSet()
_FORKING: weakref.WeakSet[Closable] = weakref.WeakSet()
_registered_in = -1


def close_at_exit(recorder: Closable) -> None:
    """Close it when this process ends in an orderly way.

    Workers of multiprocessing leave without atexit, but run their finalizers. threading's own exit
    hooks are of no use: they run while other threads may still be observing.
    """
    global _registered_in
    _OPEN.add(recorder)
    if _registered_in != os.getpid():
        _registered_in = os.getpid()
        atexit.register(_close_all)
        util.Finalize(None, _close_all, exitpriority=0)


def follow_forks(recorder: Closable) -> None:
    """Have a forked child start afresh with it."""
    _FORKING.add(recorder)


def no_exit(recorder: Closable) -> None:
    """It was closed already."""
    _OPEN.discard(recorder)


def _close_all() -> None:
    for recorder in list(_OPEN):
        recorder.close()


def _in_child() -> None:
    _OPEN.clear()
    for recorder in list(_FORKING):
        recorder.start_afresh()


os.register_at_fork(after_in_child=_in_child)
