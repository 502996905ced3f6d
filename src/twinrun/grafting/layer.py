"""What direct channels need of a device, so that tests can stand in for one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from twinrun.grafting.board import Board
from twinrun.grafting.exporting import Export


class Exporting(Protocol):
    """Memory of one device that peers can open. All calls raise UnavailableError."""

    def export(self, shape: tuple[int, ...], dtype: torch.dtype) -> Export:
        """Memory that nothing on the device uses any more."""
        ...

    def free(self, export: Export) -> None:
        """Give back what no peer can write to any more."""
        ...

    def used(self, export: Export, by: int = -1) -> int:
        """The current stream uses memory that is a gift: until it is done nobody gets that again.

        Returns the stream's handle; ``by``: that of one which is known as a user already.
        """
        ...


class Post(Protocol):
    """Writes words of a board in the order of a device's current stream."""

    def write(self, index: int, word: int) -> None: ...


class Layer(Protocol):
    """One kind of device. All calls raise UnavailableError with the device's own words."""

    def owns(self, tensor: torch.Tensor) -> bool:
        """Whether ``tensor`` lies on such a device."""
        ...

    def note(self, tensor: torch.Tensor) -> None:
        """This process receives into ``tensor``: peers may write to memory of its device."""
        ...

    def device(self) -> torch.device | None:
        """The device noted last; None where this process receives into none."""
        ...

    def identity(self, device: torch.device) -> str:
        """The same for every process that uses this very device, in the whole world."""
        ...

    def exporter(self, device: torch.device, limit_bytes: int) -> Exporting:
        """The memory of a device that is open to peers, one for all of them, kept while somebody holds it."""
        ...

    def open(self, device: torch.device, handle: bytes, nbytes: int) -> int:
        """Map another process's allocation into this one, for ``device``; its address here."""
        ...

    def shut(self, device: torch.device, address: int) -> None:
        """Undo ``open``."""
        ...

    def flat(self, device: torch.device, address: int, nbytes: int) -> torch.Tensor:
        """A uint8 view of memory that stays the caller's."""
        ...

    def copy(self, device: torch.device, to: int, source: int, nbytes: int) -> None:
        """Copy memory that ``device`` can reach, in the order of its current stream."""
        ...

    def post(self, board: Board, device: torch.device) -> Post: ...

    def apart(self, device: torch.device) -> AbstractContextManager[Any]:
        """A block whose work on ``device`` has a stream of its own."""
        ...
