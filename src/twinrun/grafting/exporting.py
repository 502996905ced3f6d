"""Memory of this process's GPU that peers may open and write to.

It comes from torch's own allocator, in a pool of its own, so that a payload can become the program's
tensor without another copy. Where torch maps memory in a way that cannot be shared (expandable
segments), it comes from the driver, and what arrives there is copied out of it.
"""

from __future__ import annotations

import ctypes
import threading
from math import prod
from typing import NamedTuple

import torch

from twinrun.errors import UnavailableError
from twinrun.grafting.device_pool import DevicePool
from twinrun.grafting.driver import Handle, call, on
from twinrun.grafting.packing import contiguous


class Export(NamedTuple):
    """``memory``: a contiguous tensor at ``address``, in an allocation of ``extent`` bytes from ``base`` on.

    ``gift``: the memory may be given away for good; whoever drops it last gives it back.
    """

    memory: torch.Tensor
    address: int
    base: int
    extent: int
    handle: bytes
    gift: bool

    def raw(self) -> torch.Tensor:
        """Its bytes (uint8)."""
        return self.memory.view(-1).view(torch.uint8)

    def given(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """All of a gift as a tensor for the program, no view of anything."""
        memory = self.memory
        same = memory.dtype == dtype and memory.shape == shape
        if same and memory.is_inference() == torch.is_inference_mode_enabled():
            return memory
        made = torch.empty(0, dtype=dtype, device=memory.device)
        return made.set_(
            memory.untyped_storage(), memory.storage_offset(), shape, contiguous(shape)
        )


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
        self._pool: DevicePool | None = None
        self._sharable = True
        self._users: dict[int, torch.cuda.Stream] = {}

    def export(self, shape: tuple[int, ...], dtype: torch.dtype) -> Export:
        """Memory that nothing on the device uses any more; UnavailableError where there is none."""
        with self._lock:
            if self._sharable:
                memory = self._out_of_torch(shape, dtype)
                try:
                    return self._described(memory)
                except UnavailableError:
                    self._sharable, self._pool = False, None
            return self._out_of_the_driver(shape, dtype)

    def used(self, export: Export, by: int = -1) -> int:
        """The current stream uses memory that is a gift: until it is done nobody gets that again.

        Returns the stream's handle; ``by``: that of one which is known as a user already.
        """
        handle: int = torch._C._cuda_getCurrentRawStream(self._device.index)
        if handle != by:
            stream = self._users.get(handle)
            if stream is None:
                stream = self._users[handle] = torch.cuda.current_stream(self._device)
            export.memory.record_stream(stream)
        return handle

    def free(self, export: Export) -> None:
        """Give back what no peer can write to any more."""
        if not export.gift:
            with on(self._device):
                call("cuMemFree_v2", ctypes.c_uint64(export.address))

    def _out_of_torch(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        try:
            if self._pool is None:
                self._pool = DevicePool(self._device)
            if self._grown:
                self._grown = False
                torch.cuda.current_stream(self._device).synchronize()
            return self._pool.empty(shape, dtype)
        except RuntimeError as error:
            text = str(error).splitlines()[0]
            raise UnavailableError("torch has no memory to share", seen=text) from None

    def _described(self, memory: torch.Tensor) -> Export:
        address = memory.data_ptr()
        base = self._places.get(address)
        if base is None:
            with on(self._device):
                base, extent = extent_of(address)
                if base not in self._allocations:
                    self._allocations[base] = extent, _handle(base)
                    self._reserved_bytes += extent
                    self._grown = self._reserved_bytes > self._limit_bytes
            self._places[address] = base
        extent, handle = self._allocations[base]
        return Export(memory, address, base, extent, handle, gift=True)

    def _out_of_the_driver(self, shape: tuple[int, ...], dtype: torch.dtype) -> Export:
        nbytes = prod(shape) * dtype.itemsize
        address, extent = ctypes.c_uint64(), max(nbytes, LEAST_BYTES)
        with on(self._device):
            call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(extent))
            try:
                handle = _handle(address.value)
            except UnavailableError:
                call("cuMemFree_v2", address)
                raise
        memory = flat(self._device, address.value, nbytes).view(dtype).view(shape)
        return Export(memory, address.value, address.value, extent, handle, gift=False)


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
