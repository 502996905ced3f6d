"""What of torch an eager call goes through, by the shortest way there is.

torch's compiled programs allocate and find their stream by functions of ``torch._C`` that skip the
dispatcher and the reading of keywords, which cost more than a small all-reduce. They are private, so
each is used only where it is there, and its public counterpart elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Empty = Callable[[], torch.Tensor]
Allocate = Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], torch.Tensor]


def current_stream() -> Callable[[int], int]:
    """A function that gives the handle of a device's current stream, by the device's index."""
    found: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    return found or (lambda index: int(torch.cuda.current_stream(index).cuda_stream))


def empty_like(x: torch.Tensor) -> Empty:
    """A function that makes a new tensor like ``x``, which is contiguous."""
    shape, dtype, device = tuple(x.shape), x.dtype, x.device
    fast = _allocate(device)
    if fast is None:
        return lambda: torch.empty(shape, dtype=dtype, device=device)
    allocate, current_device = fast
    strides, index = x.stride(), device.index

    def empty() -> torch.Tensor:
        if current_device() != index:
            return torch.empty(shape, dtype=dtype, device=device)
        return allocate(shape, strides, dtype)

    return empty


def _allocate(device: torch.device) -> tuple[Allocate, Callable[[], int | None]] | None:
    """The allocation that compiled programs use, and how to ask for the current device."""
    guards: Any = getattr(getattr(torch._C, "_dynamo", None), "guards", None)
    found: Allocate | None = getattr(guards, f"_empty_strided_{device.type}", None)
    current: Callable[[], int] | None = getattr(torch._C, "_cuda_getDevice", None)
    if found is not None and device.type == "cpu":
        return found, lambda: None
    return (found, current) if found and current and device.type == "cuda" else None
