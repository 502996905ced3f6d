"""A pool of torch's own memory, apart from the program's and from every stream that runs."""

from __future__ import annotations

import torch

from twinrun.grafting.driver import on

_begin = getattr(torch._C, "_cuda_beginAllocateCurrentThreadToPool", None)
_end = getattr(torch._C, "_cuda_endAllocateToPool", None)
_release = getattr(torch._C, "_cuda_releasePool", None)


class DevicePool:
    """Tensors on a stream on which nothing ever runs.

    What torch hands out there again is memory that all streams which used it are done with, as long as each of
    them was recorded as its user (``record_stream``). Not thread-safe. RuntimeError as torch raises it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.MemPool()
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._id = self._pool.id
        self._aside = self._stream.stream_id, self._stream.device_index, self._stream.device_type

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor of undefined values; dropping it gives its memory back."""
        if _begin is None or torch._C._cuda_getDevice() != self._device.index:
            return self._switching(shape, dtype)
        # The same through torch's own context managers takes three times as long.
        index, switch = self._device.index, torch._C._cuda_setStream
        before = torch._C._cuda_getCurrentStream(index)
        self._look()
        switch(*self._aside)
        try:
            _begin(index, self._id)
            try:
                return torch.empty(shape, dtype=dtype, device=self._device)
            finally:
                _end(index, self._id)  # type: ignore[misc]
                _release(index, self._id)  # type: ignore[misc]
        finally:
            switch(*before)

    def _switching(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        with on(self._device):
            self._look()
            with torch.cuda.use_mem_pool(self._pool, self._device), torch.cuda.stream(self._stream):
                return torch.empty(shape, dtype=dtype, device=self._device)

    def _look(self) -> None:
        # Inside of a pool torch does not look which memory has become free; this makes it look.
        torch.empty(1, dtype=torch.uint8, device=self._device)
