"""The staging buffer: where a payload waits between the caller's copy and the writer's file.

A ring over one anonymous mapping. The caller reserves and fills, the writer releases in the same
order. Whenever everything was released the ring starts again at its beginning, so that a program
that records little touches little of it. Pages are populated ahead of use, off the caller's path.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

ALIGNMENT = 64
"""Payloads begin at multiples of this, in the ring and in the segment: one copy fits both."""

_POPULATE_WRITE = 23  # Linux 5.14: fault pages in without changing them
_HUGE_PAGES = 14
_DONT_FORK = 10
_AHEAD = 32 << 20
_PATIENCE_S = 0.05


class Room(NamedTuple):
    """A reserved range: ``start`` in the ring, ``size`` usable bytes, ``span`` bytes to release."""

    start: int
    size: int
    span: int


class Staging:
    """``capacity`` bytes of memory that outlive no one but their owner, a Recorder.

    One thread at a time reserves (the recorder's lock); one thread releases (the writer).
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity // ALIGNMENT * ALIGNMENT
        self._memory = mmap.mmap(-1, self.capacity, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._memory)
        self._anchor = ctypes.c_char.from_buffer(self._memory)
        self.address = ctypes.addressof(self._anchor)
        self._position = 0
        self._reserved = 0  # bytes ever reserved, waste at the ring's end included
        self._released = 0  # bytes ever released
        self._populated = 0
        self._top = 0  # the highest position used so far
        self._freed = threading.Event()
        _advise(self.address, self.capacity, _HUGE_PAGES)
        # A forked child makes its own; sharing these pages would make both copy them on write.
        _advise(self.address, self.capacity, _DONT_FORK)
        self.populate()

    @property
    def held(self) -> int:
        """Bytes reserved and not yet released."""
        return self._reserved - self._released

    @property
    def largest(self) -> int:
        """The largest room that one reservation may ask for; longer payloads come in pieces."""
        return self.capacity // 4

    def reserve(
        self, size: int, wake: Callable[[], None], alive: Callable[[], bool]
    ) -> Room | None:
        """A room of at least ``size`` bytes; waits while the ring is full, None once not alive.

        wake: asks the writer to work; called before each wait.
        """
        room = self._try(size)
        while room is None:
            self._freed.clear()
            room = self._try(size)
            if room is not None or not alive():
                return room
            wake()
            self._freed.wait(_PATIENCE_S)
            room = self._try(size)
        return room

    def _try(self, size: int) -> Room | None:
        size = -(-size // ALIGNMENT) * ALIGNMENT
        held = self._reserved - self._released
        if held == 0:
            self._position = 0
        start, waste = self._position, 0
        if start + size > self.capacity:
            start, waste = 0, self.capacity - self._position
        if held + waste + size > self.capacity:
            return None
        self._reserved += waste + size
        self._position = start + size
        if self._position > self._top:
            self._top = self._position
        return Room(start, size, waste + size)

    def release(self, span: int) -> None:
        """Give back the oldest ``span`` bytes."""
        self._released += span
        self._freed.set()

    def populate(self) -> None:
        """Fault in the pages that will be used next; the writer calls this between batches."""
        wanted = min(self.capacity, self._top + _AHEAD)
        if wanted > self._populated:
            start, self._populated = self._populated, wanted
            _advise(self.address + start, wanted - start, _POPULATE_WRITE)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until everything was released."""
        deadline = time.monotonic() + timeout_s
        while self.held and time.monotonic() < deadline:
            self._freed.clear()
            if self.held:
                self._freed.wait(_PATIENCE_S)
        return self.held == 0

    def close(self) -> None:
        """Unmap the memory; no view of it may be in use."""
        self.view.release()
        del self._anchor
        self._memory.close()


def _advise(address: int, size: int, advice: int) -> None:
    """``madvise`` without the interpreter's lock; an old kernel's refusal only costs time later."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_int(advice))
    except (OSError, AttributeError):
        return
