"""Large receive buffers that are used again once nobody holds them: fresh memory costs more than the copy."""

from __future__ import annotations

import threading
from math import prod

import torch

from twinrun.grafting.packing import contiguous

LEAST_BYTES = 1 << 20
KEPT = 2

_use_count = getattr(torch._C, "_storage_Use_Count", None)


class Pool:
    """Hands out host tensors whose memory nobody else holds; keeps the last few for the next time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[torch.UntypedStorage] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor of undefined values; the caller owns it for as long as it likes."""
        nbytes = prod(shape) * dtype.itemsize
        if nbytes < LEAST_BYTES or _use_count is None:
            return torch.empty(shape, dtype=dtype)
        with self._lock:
            storage = next((s for s in self._kept if s.nbytes() == nbytes and _free(s)), None)
            if storage is None:
                storage = torch.empty(nbytes, dtype=torch.uint8).untyped_storage()
                self._kept = [storage, *self._kept[: KEPT - 1]]
        lent = torch.empty(0, dtype=dtype)
        with torch.no_grad():
            lent.set_(storage, 0, shape, contiguous(shape))
        return lent


def _free(storage: torch.UntypedStorage) -> bool:
    """Whether the pool's is the only reference, counting what autograd saved."""
    return bool(_use_count is not None and _use_count(storage._cdata) == 1)
