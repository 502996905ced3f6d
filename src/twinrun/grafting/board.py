"""A page of words that two processes share: what is ready in each pad, which pads are free, and where they lie."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from typing import Final

from twinrun.errors import PeerError

PADS: Final = 256
"""Pads that one process may have open to another."""

BYTES: Final = 4 * PADS * 8

GONE: Final = 1 << 62
"""In the place of a segment: this pad is no more."""

_FREE, _SEGMENT, _OFFSET = PADS, 2 * PADS, 3 * PADS
_NUMBERS, _SHIFT = 1 << 24, 40
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_SEALS = 1 | 2 | 4  # no more seals, no shrinking, no growing


class Board:
    """Four words for every pad. Its receiver frees it for the n-th time, n = 1, 2, ...; who sends may use
    it once each time. The first quarter is the sender's to write, the rest the receiver's.

    Owns its descriptor. Needs a processor that keeps the order of stores (x86-64).
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, BYTES)
        self._view = memoryview(self._map)
        self._words = self._view.cast("Q")
        self._anchor = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._anchor)

    @classmethod
    def create(cls) -> Board:
        """A new board; hand ``fd`` to the other process over a Unix socket."""
        fd = os.memfd_create("twinrun-graft-board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, BYTES)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
        return cls(fd)

    @classmethod
    def open(cls, fd: int) -> Board:
        """The board behind a descriptor that a peer sent; PeerError for anything else. Takes ``fd``."""
        try:
            sound = (
                fcntl.fcntl(fd, _F_GET_SEALS) & _SEALS == _SEALS and os.fstat(fd).st_size == BYTES
            )
        except OSError:
            sound = False
        if not sound:
            os.close(fd)
            raise PeerError("a peer sent a descriptor that is no sealed board")
        return cls(fd)

    def ready(self, pad: int, number: int) -> int:
        """How many bytes of message ``number`` lie ready in a pad."""
        word = self._words[pad]
        return word & ((1 << _SHIFT) - 1) if word >> _SHIFT == _tag(number) else 0

    def freed(self, pad: int) -> int:
        """How often the receiver has freed a pad."""
        return self._words[_FREE + pad]

    def place(self, pad: int) -> tuple[int, int]:
        """(segment, offset) of a pad, as it was freed last."""
        return self._words[_SEGMENT + pad], self._words[_OFFSET + pad]

    def put(self, pad: int, segment: int, offset: int) -> None:
        """Say where a pad lies, before it is freed there."""
        self._words[_SEGMENT + pad], self._words[_OFFSET + pad] = segment, offset

    def store(self, index: int, word: int) -> None:
        """Write one word from the processor, at once."""
        self._words[index] = word

    def close(self) -> None:
        """Close this process's descriptor; the page stays mapped, since a device may still write to it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def ready_word(number: int, nbytes: int) -> int:
    """What says that ``nbytes`` of message ``number`` are ready; at the index of its pad."""
    return _tag(number) << _SHIFT | nbytes


def free_index(pad: int) -> int:
    """Where the receiver writes how often it has freed a pad."""
    return _FREE + pad


def _tag(number: int) -> int:
    # Never 0, which is what a fresh page holds.
    return 1 + number % (_NUMBERS - 1)
