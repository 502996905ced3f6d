"""Copying memory into the staging buffer."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

from twinrun.recorder.staging import Room, Staging

_SMALL = 64 << 10

_copy_holding = ctypes.PYFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
)(("memmove", ctypes.PyDLL(None)))
"""memmove that keeps the interpreter's lock: for a small copy, letting it go costs more."""

Reserve = Callable[[int], Room | None]


def copy_whole(staging: Staging, address: int, nbytes: int, reserve: Reserve) -> Room | None:
    """Copy a payload that fits one room; None where no room is to be had any more."""
    room = reserve(nbytes)
    if room is None:
        return None
    if nbytes:
        copy = _copy_holding if nbytes <= _SMALL else ctypes.memmove
        copy(staging.address + room.start, address, nbytes)
    if room.size != nbytes:
        # Nothing of an earlier tensor goes into the padding.
        staging.view[room.start + nbytes : room.start + room.size] = bytes(room.size - nbytes)
    return room


def copy_in_pieces(
    staging: Staging, address: int, nbytes: int, reserve: Reserve
) -> Iterator[tuple[Room, int]]:
    """Copy a payload larger than any room; each room with the bytes in it."""
    for start in range(0, nbytes, staging.largest):
        size = min(nbytes - start, staging.largest)
        room = copy_whole(staging, address + start, size, reserve)
        if room is None:
            return
        yield room, size
