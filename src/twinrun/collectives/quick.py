"""What of torch an eager call goes through, by the shortest way there is.

torch's compiled programs allocate and find their stream by functions of ``torch._C`` that skip the
dispatcher and the reading of keywords, which cost more than a small all-reduce. They are private, so
each is used only where it is there, and its public counterpart elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Allocate = Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], torch.Tensor]


def current_stream() -> Callable[[int], int]:
    """A function that gives the handle of a device's current stream, by the device's index."""
    found: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    return found or (lambda index: int(torch.cuda.current_stream(index).cuda_stream))


def current_device() -> Callable[[], int]:
    """A function that gives the index of the current CUDA device."""
    found: Callable[[], int] | None = getattr(torch._C, "_cuda_getDevice", None)
    return found or torch.cuda.current_device


def allocation(device: torch.device) -> tuple[Allocate, int | None]:
    """A function that makes a tensor on ``device`` from shape, strides and dtype.

    The index with it is the device that must be current for it; None where that does not matter.
    """
    guards: Any = getattr(getattr(torch._C, "_dynamo", None), "guards", None)
    found: Allocate | None = getattr(guards, f"_empty_strided_{device.type}", None)
    if found is not None and device.type in ("cpu", "cuda"):
        return found, device.index

    def public(
        shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        return torch.empty_strided(shape, strides, dtype=dtype, device=device)

    return public, None
