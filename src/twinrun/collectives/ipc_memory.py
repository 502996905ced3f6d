"""Plain device memory shared by CUDA IPC handles, by address: tensors may be long gone.

A handle names a whole allocation; an address in it is the allocation and an offset. One process
opens an allocation of a peer once, however many addresses it needs, and closes it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from twinrun.collectives.exchange import Exchange
from twinrun.errors import UnavailableError
from twinrun.kernels.driver import driver, outside_capture, take


@dataclass(frozen=True, slots=True)
class Place:
    """An address of this or another rank as it travels: handle (hex), which allocation, offset."""

    handle: str
    allocation: int
    offset: int


def place_of(address: int) -> Place:
    """The allocation that ``address`` lies in; ``UnavailableError`` where it cannot be shared.

    That is so for memory of expandable segments and of some memory pools, which CUDA IPC handles
    do not reach.
    """
    cuda = driver()
    reachable = cuda.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
    with outside_capture():
        if not take(cuda.cuPointerGetAttribute(reachable, address)):
            raise UnavailableError(
                "a tensor's memory cannot be shared with other processes.",
                seen="memory that CUDA IPC does not reach (expandable segments, or a pool's own)",
                expected="memory of torch's default allocator",
                do="TWINRUN_ALL_REDUCE_GRAPH_INPUTS=0 leaves graph inputs where they are",
            )
        base, _ = take(cuda.cuMemGetAddressRange(address))
        handle = take(cuda.cuIpcGetMemHandle(base))
        number = cuda.CUpointer_attribute.CU_POINTER_ATTRIBUTE_BUFFER_ID
        allocation = int(take(cuda.cuPointerGetAttribute(number, base)))
    return Place(bytes(handle.reserved).hex(), allocation, address - int(base))


def shareable(device: torch.device) -> bool:
    """Whether what torch's allocator hands out on ``device`` can be shared by handles."""
    try:
        place_of(torch.empty(1 << 10, dtype=torch.uint8, device=device).data_ptr())
    except UnavailableError:
        return False
    return True


class PeerMemory:
    """The allocations of the peers that this process has opened."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def address(self, rank: int, place: Place) -> int:
        """Where ``place`` of rank ``rank`` is mapped here; opened the first time."""
        key = (rank, place.allocation)
        if key not in self._open:
            self._open[key] = self._map(place)
        return self._open[key] + place.offset

    def _map(self, place: Place) -> int:
        cuda = driver()
        handle = cuda.CUipcMemHandle()
        handle.reserved = bytes.fromhex(place.handle)
        lazily = cuda.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS.value
        with torch.cuda.device(self._device), outside_capture():
            return int(take(cuda.cuIpcOpenMemHandle(handle, lazily)))

    def close(self) -> None:
        """Unmap everything. Safe twice."""
        cuda = driver()
        with torch.cuda.device(self._device):
            for address in self._open.values():
                take(cuda.cuIpcCloseMemHandle(address))
        self._open.clear()


def exchange_places(exchange: Exchange, mine: list[Place]) -> list[list[Place]]:
    """Every rank's places, in the group's order."""
    told = exchange.gather_json([[p.handle, p.allocation, p.offset] for p in mine])
    return [[Place(str(h), int(a), int(o)) for h, a, o in row] for row in told]


def allocate(device: torch.device, nbytes: int) -> tuple[int, Any]:
    """``nbytes`` of plain device memory outside torch's pools: its address, and how to free it."""
    cuda = driver()
    with torch.cuda.device(device):
        address = int(take(cuda.cuMemAlloc(nbytes)))

    def free() -> None:
        with torch.cuda.device(device):
            take(cuda.cuMemFree(address))

    return address, free


def fill(device: torch.device, address: int, byte: int, nbytes: int) -> None:
    """Set ``nbytes`` from ``address`` on to ``byte``, on the current stream's device, and wait."""
    cuda = driver()
    with torch.cuda.device(device):
        take(cuda.cuMemsetD8(address, byte, nbytes))
        torch.cuda.synchronize(device)
