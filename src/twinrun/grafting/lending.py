"""Long runs lent instead of copied twice: the reader takes them straight out of the writer's memory.

A ring costs two copies, made side by side where both processes have a core of their own. Where ranks
outnumber cores one copy is better: the writer posts a loan in the ring's header, the reader copies by
process_vm_readv(2), piece by piece, and a piece counts once the reader has seen that the loan still
stands. A loan that was withdrawn meanwhile leaves nothing behind: the rest comes another way. Memory that
the kernel will not read (pinned by a device's driver) is refused, and the ring carries all from then on.
"""

from __future__ import annotations

import ctypes
import secrets
import time
from typing import Final

from twinrun.errors import PeerError

LEAST_BYTES: Final = 256 << 10
"""Shorter runs are copied through the ring."""
PIECE: Final = 2 << 20
"""Bytes taken between two signs of progress."""
_ACCEPT_S: Final = 1.0
"""A reader that takes longer to count a piece has died there."""

# In 8-byte words of the ring's header; the writer's, then the reader's, on cache lines of their own.
_NUMBER, _AT, _ADDRESS, _NBYTES, _PROBE_ADDRESS, _PROBE = 32, 33, 34, 35, 36, 37
_REACHES, _BUSY, _TAKEN = 48, 49, 50

_libc = ctypes.CDLL(None, use_errno=True)
_read_memory = getattr(_libc, "process_vm_readv", None)
if _read_memory is not None:
    _read_memory.restype = ctypes.c_ssize_t
    _read_memory.argtypes = (
        ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong,
    )  # fmt: skip


class Vector(ctypes.Structure):
    """One run of memory, as ``struct iovec``."""

    _fields_ = (("address", ctypes.c_uint64), ("nbytes", ctypes.c_uint64))


def _fence() -> None:
    """Nothing written before is seen after what is read next: a call of C gives the lock up and takes it."""
    _libc.getppid()


class Lender:
    """The writing half. ``words``: the ring's header."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._probe = ctypes.c_uint64(secrets.randbits(64))
        words[_PROBE] = self._probe.value
        words[_PROBE_ADDRESS] = ctypes.addressof(self._probe)
        self._number = 0
        self._base = self._told = self._nbytes = 0

    def may(self, nbytes: int) -> bool:
        """Whether a run of this length is to be lent: the reader has shown that it can read here."""
        return nbytes >= LEAST_BYTES and bool(self._words[_REACHES])

    @property
    def lent(self) -> bool:
        """Whether a loan stands."""
        return self._nbytes > 0

    @property
    def refused(self) -> bool:
        """Whether the reader cannot read here, or not any more."""
        return not self._words[_REACHES]

    def lend(self, address: int, nbytes: int, at: int) -> None:
        """Post a run at position ``at`` of the stream; its memory must stay until all is moved or withdrawn."""
        words = self._words
        self._base, self._told, self._nbytes = words[_TAKEN], 0, nbytes
        words[_AT], words[_ADDRESS], words[_NBYTES] = at, address, nbytes
        self._number += 1
        _fence()
        words[_NUMBER] = self._number

    def moved(self) -> int:
        """Bytes of the loan taken since the last call."""
        taken = self._words[_TAKEN] - self._base
        if not self._told <= taken <= self._nbytes:
            raise PeerError("the counters of a shared ring make no sense; the peer is broken")
        moved, self._told = taken - self._told, taken
        if taken == self._nbytes:
            self._words[_NUMBER] = self._nbytes = 0
        return moved

    def withdraw(self) -> int:
        """End the loan; bytes taken since the last call. What the reader copies from now on is not used."""
        if not self.lent:
            return 0
        self._words[_NUMBER] = 0
        _fence()
        until = time.monotonic() + _ACCEPT_S
        while self._words[_BUSY] and time.monotonic() < until:
            _fence()
        moved = self.moved()
        self._nbytes = 0
        return moved


class Borrower:
    """The reading half, from the process ``pid`` as the kernel names it."""

    def __init__(self, words: memoryview, pid: int) -> None:
        self._words = words
        self._pid = pid
        self._number = self._offset = 0
        probe = ctypes.c_uint64()
        into = Vector(ctypes.addressof(probe), 8)
        if pid > 0 and _read_memory is not None:
            there = Vector(words[_PROBE_ADDRESS], 8)
            got = _read_memory(pid, ctypes.byref(into), 1, ctypes.byref(there), 1, 0)
            words[_REACHES] = int(got == 8 and probe.value == words[_PROBE])

    def left(self, at: int) -> int:
        """Bytes of the loan at position ``at`` of the stream that have not been taken; 0 where none stands."""
        words = self._words
        number = words[_NUMBER]
        if not number or not words[_REACHES]:
            return 0
        if number != self._number:
            if words[_AT] != at:
                return 0
            self._number, self._offset = number, 0
        return max(0, words[_NBYTES] - self._offset)

    def take_run(self, address: int, nbytes: int) -> int:
        """``take`` into one run of memory."""
        into = Vector(address, nbytes)
        return self.take(ctypes.addressof(into), 1, nbytes)

    def take(self, vectors: int, count: int, nbytes: int) -> int:
        """Copy the next ``nbytes`` into ``count`` vectors at address ``vectors``; 0 if it was withdrawn, or is refused."""
        words = self._words
        assert _read_memory is not None
        there = Vector(words[_ADDRESS] + self._offset, nbytes)
        got = int(_read_memory(self._pid, vectors, count, ctypes.byref(there), 1, 0))
        if got != nbytes:
            words[_REACHES] = 0
            return 0
        words[_BUSY] = 1
        _fence()
        stands = words[_NUMBER] == self._number
        if stands:
            words[_TAKEN] += nbytes
            self._offset += nbytes
        words[_BUSY] = 0
        return nbytes if stands else 0
