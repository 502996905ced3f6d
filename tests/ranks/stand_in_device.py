"""A device made of shared host memory, so that direct channels run where there is no GPU."""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from twinrun.errors import UnavailableError
from twinrun.grafting import reach
from twinrun.grafting.board import Board
from twinrun.grafting.layer import Block
from twinrun.grafting.memory import memmove
from twinrun.grafting.reference import HANDLE_BYTES

CPU = torch.device("cpu")


class StandIn:
    """``Layer`` on tensors of the CPU; ``late_s``: how long a word takes to arrive, None for never."""

    def __init__(
        self, identity: str, *, refuses: str = "", late_s: float | None = 0.0, receives: bool = True
    ) -> None:
        self._identity, self._refuses, self._late_s = identity, refuses, late_s
        self._receives = receives
        self.allocated: dict[int, tuple[int, mmap.mmap]] = {}
        self.opened: dict[int, mmap.mmap] = {}

    def owns(self, tensor: torch.Tensor) -> bool:
        return tensor.is_cpu

    def note(self, tensor: torch.Tensor) -> None:
        pass

    def device(self) -> torch.device | None:
        return CPU if self._receives else None

    def identity(self, device: torch.device) -> str:
        return self._identity

    def allocate(self, device: torch.device, nbytes: int) -> Block:
        fd = os.memfd_create("stand-in")
        os.ftruncate(fd, nbytes)
        address = _map(fd, nbytes, self.allocated, fd)
        handle = f"/proc/{os.getpid()}/fd/{fd}".encode().ljust(HANDLE_BYTES, b"\0")
        return Block(address, nbytes, handle)

    def free(self, device: torch.device, block: Block) -> None:
        fd, _ = self.allocated.pop(block.address)
        os.close(fd)

    def open(self, device: torch.device, handle: bytes, nbytes: int) -> int:
        if self._refuses:
            raise UnavailableError("refused", seen=self._refuses)
        try:
            fd = os.open(handle.rstrip(b"\0"), os.O_RDWR)
        except OSError as error:
            raise UnavailableError("refused", seen=str(error)) from None
        address = _map(fd, nbytes, self.opened, None)
        os.close(fd)
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


def _map(fd: int, nbytes: int, into: dict[int, Any], keep: int | None) -> int:
    mapped = mmap.mmap(fd, nbytes)
    address = torch.frombuffer(mapped, dtype=torch.uint8).data_ptr()
    into[address] = mapped if keep is None else (keep, mapped)
    return address


def use(identity: str, **options: Any) -> StandIn:
    """Make this process's peers see a stand-in device; it is returned."""
    made = StandIn(identity, **options)
    reach.layer = lambda: made
    return made
