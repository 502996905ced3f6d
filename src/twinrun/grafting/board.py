"""A page of words that two processes share, written in stream order: what is ready, what was taken."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from typing import Final

from twinrun.errors import PeerError

SLOTS: Final = 256
"""Messages that may be under way from one process to another at a time."""

BYTES: Final = 2 * SLOTS * 8

_NUMBERS, _SHIFT = 1 << 24, 40
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_SEALS = 1 | 2 | 4  # no more seals, no shrinking, no growing


class Board:
    """Two words for every slot: how much of a message is ready, and whether it was taken.

    Message ``number`` uses slot ``number % SLOTS``; at most SLOTS may be under way. Only the sender
    writes the first half and only the receiver the second. Owns its descriptor.
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

    def ready(self, number: int) -> int:
        """How many bytes of message ``number`` lie ready."""
        word = self._words[number % SLOTS]
        return word & ((1 << _SHIFT) - 1) if word >> _SHIFT == _tag(number) else 0

    def taken(self, number: int) -> bool:
        """Whether the receiver has copied all of message ``number``."""
        return self._words[SLOTS + number % SLOTS] == taken_word(number)

    def store(self, index: int, word: int) -> None:
        """Write one word from the processor, at once."""
        self._words[index] = word

    def close(self) -> None:
        """Unmap and close this process's end."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def ready_word(number: int, nbytes: int) -> int:
    """What says that ``nbytes`` of message ``number`` are ready; at index ``ready_index``."""
    return _tag(number) << _SHIFT | nbytes


def ready_index(number: int) -> int:
    return number % SLOTS


def taken_word(number: int) -> int:
    """What says that message ``number`` was taken; at index ``taken_index``."""
    return number + 1


def taken_index(number: int) -> int:
    return SLOTS + number % SLOTS


def _tag(number: int) -> int:
    # Never 0, which is what a fresh page holds.
    return 1 + number % (_NUMBERS - 1)
