"""Memory of this process's GPU that peers may open and write to.

It comes from torch's own allocator, in a pool of its own, so that a payload can become the program's
tensor without another copy. Where torch maps memory in a way that cannot be shared (expandable
segments), it comes from the driver, and what arrives there is copied out of it.
"""

from __future__ import annotations

import ctypes
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from twinrun.errors import UnavailableError
from twinrun.grafting.driver import Handle, call, on


@dataclass(frozen=True, slots=True)
class Export:
    """``raw``: the bytes (uint8). They lie in an allocation of ``extent`` bytes from ``base`` on.

    ``gift``: the memory may be given away for good; whoever drops it last gives it back.
    """

    raw: torch.Tensor
    base: int
    extent: int
    handle: bytes
    gift: bool


class Exporter:
    """The memory of one device that is open to peers. Thread-safe.

    Whenever it has grown beyond ``limit_bytes``, the current stream is waited for before there is more: gifts
    that the program has dropped, but its device is not done with, come back then.
    """

    def __init__(self, device: torch.device, limit_bytes: int) -> None:
        self._device, self._limit_bytes = device, limit_bytes
        self._lock = threading.Lock()
        self._allocations: dict[int, tuple[int, bytes]] = {}
        """base -> extent, handle"""
        self._places: dict[int, int] = {}
        """address -> base"""
        self._reserved_bytes = 0
        self._grown = False
        self._stream: Any = None
        self._pool: torch.cuda.MemPool | None = None
        self._sharable = True

    def export(self, nbytes: int) -> Export:
        """Memory that nothing on the device uses any more; UnavailableError where there is none."""
        with self._lock:
            if self._sharable:
                raw = self._out_of_torch(nbytes)
                try:
                    return self._described(raw)
                except UnavailableError:
                    self._sharable, self._pool = False, None
            return self._out_of_the_driver(nbytes)

    def used(self, raw: torch.Tensor, by: int = -1) -> int:
        """The current stream uses memory that is a gift: until it is done nobody gets that again.

        Returns the stream's handle; ``by``: that of one which is known as a user already.
        """
        handle: int = torch._C._cuda_getCurrentRawStream(self._device.index)
        if handle != by:
            raw.record_stream(torch.cuda.current_stream(self._device))
        return handle

    def free(self, export: Export) -> None:
        """Give back what no peer can write to any more."""
        if not export.gift:
            with on(self._device):
                call("cuMemFree_v2", ctypes.c_uint64(export.raw.data_ptr()))

    def _out_of_torch(self, nbytes: int) -> torch.Tensor:
        # On a stream on which nothing ever runs: what torch hands out there again is memory that all
        # streams which used it are done with, since whoever receives it is recorded as its user.
        try:
            if self._pool is None:
                with torch.cuda.device(self._device):
                    self._pool = torch.cuda.MemPool()
                    self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            if self._grown:
                self._grown = False
                torch.cuda.current_stream(self._device).synchronize()
            with on(self._device):
                # Inside of a pool torch does not look which memory has become free; this makes it look.
                torch.empty(1, dtype=torch.uint8, device=self._device)
                with torch.cuda.use_mem_pool(self._pool, self._device), self._aside():
                    return torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        except RuntimeError as error:
            text = str(error).splitlines()[0]
            raise UnavailableError("torch has no memory to share", seen=text) from None

    def _aside(self) -> AbstractContextManager[Any]:
        stream: AbstractContextManager[Any] = self._stream
        return stream if hasattr(stream, "__enter__") else torch.cuda.stream(self._stream)

    def _described(self, raw: torch.Tensor) -> Export:
        address = raw.data_ptr()
        base = self._places.get(address)
        if base is None:
            with on(self._device):
                base, extent = extent_of(address)
                if base not in self._allocations:
                    self._allocations[base] = extent, _handle(base)
                    self._reserved_bytes += extent
                    self._grown = self._reserved_bytes > self._limit_bytes
            self._places[address] = base
        return Export(raw, base, *self._allocations[base], gift=True)

    def _out_of_the_driver(self, nbytes: int) -> Export:
        address, extent = ctypes.c_uint64(), max(nbytes, LEAST_BYTES)
        with on(self._device):
            call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(extent))
            try:
                handle = _handle(address.value)
            except UnavailableError:
                call("cuMemFree_v2", address)
                raise
        raw = flat(self._device, address.value, nbytes)
        return Export(raw, address.value, extent, handle, gift=False)


LEAST_BYTES = 2 << 20
"""Smaller allocations would share the driver's pages, and so the peer's sight, with other memory."""


def flat(device: torch.device, address: int, nbytes: int) -> torch.Tensor:
    """A uint8 view of memory that stays its owner's."""
    storage = torch._C._construct_storage_from_data_pointer(address, device, nbytes)
    made = torch.empty(0, dtype=torch.uint8, device=device)
    with torch.no_grad():
        return made.set_(storage, 0, (nbytes,), (1,))


def extent_of(address: int) -> tuple[int, int]:
    """(base, bytes) of the allocation that an address lies in, in the driver's current context."""
    base, size = ctypes.c_uint64(), ctypes.c_size_t()
    call(
        "cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(size), ctypes.c_uint64(address)
    )
    return base.value, size.value


def _handle(base: int) -> bytes:
    handle = Handle()
    call("cuIpcGetMemHandle", ctypes.byref(handle), ctypes.c_uint64(base))
    return bytes(handle.reserved)
