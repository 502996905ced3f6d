"""Whether two tensors hold the same bits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import cast

import torch


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """True if shape, dtype and every bit agree: -0.0 is not 0.0, and a NaN equals its own bits."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    one, two = first.contiguous(), second.contiguous()
    nbytes = one.numel() * one.element_size()
    if not nbytes:
        return True
    memcmp = _memcmp()
    if memcmp is not None and one.device.type == "cpu" == two.device.type:
        return memcmp(one.data_ptr(), two.data_ptr(), nbytes) == 0
    return torch.equal(one.reshape(-1).view(torch.uint8), two.reshape(-1).view(torch.uint8))


@cache
def _memcmp() -> Callable[[int, int, int], int] | None:
    """The C library's memcmp: several times as fast on cached memory as torch.equal."""
    try:
        found = ctypes.CDLL(None).memcmp
    except (OSError, TypeError, AttributeError):
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    found.restype = ctypes.c_int
    return cast("Callable[[int, int, int], int]", found)
