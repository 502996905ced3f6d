"""A device made of shared host memory, so that direct channels run where there is no GPU."""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch

from twinrun.errors import UnavailableError
from twinrun.grafting import reach
from twinrun.grafting.board import Board
from twinrun.grafting.exporting import Export
from twinrun.grafting.memory import memmove
from twinrun.grafting.packing import contiguous
from twinrun.grafting.reference import HANDLE_BYTES

CPU = torch.device("cpu")


class Exporting:
    """Shared memory that peers open by its descriptor; what nobody holds any more is handed out again."""

    def __init__(self, gifts: bool) -> None:
        self._gifts = gifts
        self.refuses = 0
        """how many of the next calls find no memory"""
        self._made: list[tuple[int, torch.UntypedStorage]] = []
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """How much is out."""
        return sum(storage.nbytes() for _, storage in self._made if _shared(storage))

    def export(self, shape: tuple[int, ...], dtype: torch.dtype) -> Export:
        nbytes = prod(shape) * dtype.itemsize
        with self._lock:
            if self.refuses:
                self.refuses -= 1
                raise UnavailableError("refused", seen="out of memory")
            found = next(
                ((f, s) for f, s in self._made if s.nbytes() == nbytes and not _shared(s)), None
            )
            if found is None:
                fd = os.memfd_create("stand-in")
                os.ftruncate(fd, nbytes)
                raw = torch.frombuffer(mmap.mmap(fd, nbytes), dtype=torch.uint8)
                found = fd, raw.untyped_storage()
                self._made.append(found)
            fd, storage = found
            made = torch.empty(0, dtype=dtype).set_(storage, 0, shape, contiguous(shape))
            handle = f"/proc/{os.getpid()}/fd/{fd}".encode().ljust(HANDLE_BYTES, b"\0")
            address = made.data_ptr()
            return Export(made, address, address, nbytes, handle, self._gifts)

    def free(self, export: Export) -> None:
        pass

    def used(self, export: Export, by: int = -1) -> int:
        return 0


def _shared(storage: torch.UntypedStorage) -> bool:
    return bool(torch._C._storage_Use_Count(storage._cdata) > 1)


class StandIn:
    """``Layer`` on tensors of the CPU; ``late_s``: how long a word takes to arrive, None for never.

    ``gifts``: whether received payloads become the program's tensors.
    """

    def __init__(
        self,
        identity: str,
        *,
        refuses: str = "",
        late_s: float | None = 0.0,
        receives: bool = True,
        gifts: bool = True,
    ) -> None:
        self._identity, self._refuses, self._late_s = identity, refuses, late_s
        self._receives = receives
        self.exporting = Exporting(gifts)
        self.opened: dict[int, mmap.mmap] = {}

    def owns(self, tensor: torch.Tensor) -> bool:
        return tensor.is_cpu

    def note(self, tensor: torch.Tensor) -> None:
        pass

    def device(self) -> torch.device | None:
        return CPU if self._receives else None

    def identity(self, device: torch.device) -> str:
        return self._identity

    def exporter(self, device: torch.device, limit_bytes: int) -> Exporting:
        return self.exporting

    def open(self, device: torch.device, handle: bytes, nbytes: int) -> int:
        if self._refuses:
            raise UnavailableError("refused", seen=self._refuses)
        try:
            fd = os.open(handle.rstrip(b"\0"), os.O_RDWR)
        except OSError as error:
            raise UnavailableError("refused", seen=str(error)) from None
        mapped = mmap.mmap(fd, nbytes)
        os.close(fd)
        address = torch.frombuffer(mapped, dtype=torch.uint8).data_ptr()
        self.opened[address] = mapped
        return address

    def shut(self, device: torch.device, address: int) -> None:
        del self.opened[address]

    def flat(self, device: torch.device, address: int, nbytes: int) -> torch.Tensor:
        storage = torch._C._construct_storage_from_data_pointer(address, CPU, nbytes)
        return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (nbytes,), (1,))

    def copy(self, device: torch.device, to: int, source: int, nbytes: int) -> None:
        memmove(to, source, nbytes)

    def post(self, board: Board, device: torch.device) -> Any:
        return _Post(board, self)

    def apart(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext()


class _Post:
    def __init__(self, board: Board, layer: StandIn) -> None:
        self._board, self._layer = board, layer

    def write(self, index: int, word: int) -> None:
        late = self._layer._late_s
        if late == 0:
            self._board.store(index, word)
        elif late is not None:
            threading.Timer(late, self._board.store, (index, word)).start()


def use(identity: str, **options: Any) -> StandIn:
    """Make this process's peers see a stand-in device; it is returned."""
    made = StandIn(identity, **options)
    reach.layer = lambda: made
    return made
