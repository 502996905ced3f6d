"""The staging buffer: where a payload waits between the caller's copy and the writer's file.

A ring over one anonymous mapping. The caller reserves and fills, the writer releases in the same
order. Whenever everything was released the ring starts again at its beginning, so that a program
that records little touches little of it. Pages are populated ahead of use, off the caller's path.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable
from contextlib import suppress

ALIGNMENT = 64
"""Payloads begin at multiples of this, in the ring and in the segment: one write fits both."""

_HUGE_PAGES = 14
_WIPE_ON_FORK = 18
_POPULATE_WRITE = 23  # Linux 5.14: fault pages in without changing them
_AHEAD = 32 << 20
_PATIENCE_S = 0.05


class Staging:
    """``capacity`` bytes that belong to one Recorder.

    One thread at a time reserves (under the recorder's lock), one thread releases (the writer).
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity // ALIGNMENT * ALIGNMENT
        self.largest = self.capacity // 4
        """The most that one reservation may ask for; longer payloads come in pieces."""
        self._memory = mmap.mmap(-1, self.capacity, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._memory)
        self._anchor = ctypes.c_char.from_buffer(self._memory)
        self.address = ctypes.addressof(self._anchor)
        self.reserved = 0
        """Bytes ever reserved, what was left over at the ring's end included."""
        self._position = 0
        self._released = 0
        self._populated = 0
        self._top = 0  # the highest position used so far
        self._freed = threading.Event()
        _advise(self.address, self.capacity, _HUGE_PAGES)
        # A forked child makes its own buffer: it shares none of these pages, so that neither side
        # copies them on write, yet the range stays its own to unmap.
        _advise(self.address, self.capacity, _WIPE_ON_FORK)
        self.populate()

    def reserve(self, nbytes: int) -> int:
        """The start of ``nbytes`` free bytes, rounded up to the alignment; -1 where none are."""
        size = (nbytes + 63) & -64
        held = self.reserved - self._released
        start = self._position if held else 0
        end = start + size
        if end > self.capacity:
            held += self.capacity - start
            start, end = 0, size
        if held + size > self.capacity:
            return -1
        self.reserved = self._released + held + size
        self._position = end
        if end > self._top:
            self._top = end
        return start

    def wait_and_reserve(
        self, nbytes: int, wake: Callable[[], None], alive: Callable[[], bool]
    ) -> int:
        """As ``reserve``, waiting while the ring is full; -1 once the writer is not alive.

        wake: asks the writer to work; called before each wait.
        """
        while (start := self.reserve(nbytes)) < 0 and alive():
            self._freed.clear()
            wake()
            # Released between the attempt and the clear: the short patience finds it.
            self._freed.wait(_PATIENCE_S)
        return start

    def release(self, reserved: int) -> None:
        """Give back everything up to the value that ``reserved`` had after a reservation."""
        self._released = reserved
        self._freed.set()

    def populate(self) -> None:
        """Fault in the pages that will be used next; the writer calls this between batches."""
        wanted = min(self.capacity, self._top + _AHEAD)
        if wanted > self._populated:
            start, self._populated = self._populated, wanted
            _advise(self.address + start, wanted - start, _POPULATE_WRITE)

    def close(self) -> None:
        """Unmap the memory; where a view of it is still in use, the last view's end does it."""
        with suppress(BufferError):
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
