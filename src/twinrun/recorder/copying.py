"""Copying memory into the staging buffer."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

from twinrun.recorder.staging import ALIGNMENT, Staging

_SMALL = 64 << 10

_copy_holding = ctypes.PYFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
)(("memmove", ctypes.PyDLL(None)))
"""memmove that keeps the interpreter's lock: for a small copy, letting it go costs more."""

Reserve = Callable[[int], int]


def copy_whole(staging: Staging, address: int, nbytes: int, reserve: Reserve) -> int:
    """Copy a payload that fits one reservation; its start, or -1 where no room is to be had."""
    start = staging.reserve(nbytes)
    if start < 0:
        start = reserve(nbytes)
        if start < 0:
            return -1
    if nbytes <= _SMALL:
        _copy_holding(staging.address + start, address, nbytes)
    else:
        ctypes.memmove(staging.address + start, address, nbytes)
    left = -nbytes % ALIGNMENT
    if left:
        # Nothing of an earlier tensor goes into the padding.
        end = start + nbytes
        staging.view[end : end + left] = bytes(left)
    return start


def copy_in_pieces(
    staging: Staging, address: int, nbytes: int, reserve: Reserve
) -> Iterator[tuple[int, int]]:
    """Copy a payload of any size; each piece's start and the bytes in it. Ends early without room."""
    for done in range(0, max(nbytes, 1), staging.largest):
        size = min(nbytes - done, staging.largest)
        start = copy_whole(staging, address + done, size, reserve)
        if start < 0:
            return
        yield start, size
