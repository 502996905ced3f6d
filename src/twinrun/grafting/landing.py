"""The receiving half of a direct channel: a sender's blocks, opened once, and payloads that lie in them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import torch

from twinrun.errors import PeerError, UnavailableError
from twinrun.grafting.board import Board, taken_index, taken_word
from twinrun.grafting.layer import Layer
from twinrun.grafting.patience import Patience
from twinrun.grafting.reference import CHUNK_BYTES, Card, Flat, Reference, pieces

_END_S = 5.0


class Landing:
    """What this process has opened of one sender's memory, on one of its own devices."""

    def __init__(
        self,
        layer: Layer,
        device: torch.device,
        board: Board,
        who: str,
        check: Callable[[], None],
        timeout_s: float,
    ) -> None:
        self._layer, self.device, self.board = layer, device, board
        self.post = layer.post(board, device)
        self.who, self.check, self.timeout_s = who, check, timeout_s
        self._open: dict[int, Flat] = {}
        self._lock = threading.Lock()
        self._reading: deque[int] = deque()

    def define(self, card: Card) -> None:
        """Open a block; PeerError where that cannot be done."""
        try:
            with self._lock:
                if card.block in self._open:
                    raise UnavailableError(f"block {card.block} is there already")
                address = self._layer.open(self.device, card.handle, card.nbytes)
                self._open[card.block] = Flat(self._layer.flat(self.device, address, card.nbytes))
        except UnavailableError as error:
            raise PeerError(
                f"a block of {self.who}'s memory cannot be opened: {error.seen or error.summary}",
                do="TWINRUN_GRAFT_CHANNEL=host sends everything through host memory",
            ) from None

    def flat(self, block: int) -> Flat:
        """The bytes of a block; PeerError for one that was never described."""
        found = self._open.get(block)
        if found is None:
            raise PeerError(f"{self.who} refers to a block of memory that it has not described")
        return found

    def payload(self, reference: Reference) -> Referenced:
        """What a reference refers to, checked to lie in its block."""
        flat = self.flat(reference.block)
        if reference.offset + reference.nbytes > flat.nbytes:
            raise PeerError(
                f"{self.who} refers to bytes beyond its own block",
                seen=f"{reference.nbytes} from {reference.offset}",
                expected=f"at most {flat.nbytes} bytes in all",
            )
        return Referenced(self, flat, reference)

    def forget(self, blocks: Sequence[int]) -> None:
        """Close blocks that are not used any more."""
        with self._lock:
            for number in blocks:
                flat = self._open.pop(number, None)
                if flat is not None:
                    self._layer.shut(self.device, flat.raw.data_ptr())

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Copy from an open block to this device's memory; PeerError where the device cannot."""
        try:
            self._layer.copy(self.device, to, source, nbytes)
        except UnavailableError as error:
            raise PeerError(
                f"{self.who}'s memory cannot be copied: {error.seen or error.summary}"
            ) from None

    def took(self, number: int) -> None:
        """All of message ``number`` was read: say so once the copies are done."""
        self.post.write(taken_index(number), taken_word(number))
        self._reading.append(number)
        while self._reading and self.board.taken(self._reading[0]):
            self._reading.popleft()

    def close(self) -> None:
        """Close everything, once nothing is being copied any more."""
        patience = Patience(_END_S, lambda: None)
        while not all(map(self.board.taken, self._reading)):
            if not patience.pause():
                return  # the device is busy with other things; the mappings go with the process
        self.forget(list(self._open))
        self.board.close()


class Referenced:
    """One message's payload in a sender's memory, copied from there as it is read, never before it is ready.

    Copies run in the order of the current stream; when all was read, the sender learns of it in that order.
    """

    def __init__(self, landing: Landing, flat: Flat, reference: Reference) -> None:
        self._landing, self._flat, self._reference = landing, flat, reference
        self._at = 0
        self._ready = 0
        self.device = landing.device

    @property
    def left(self) -> int:
        return self._reference.nbytes - self._at

    def read_tensor(self, into: torch.Tensor, dtype: torch.dtype, *, add: bool = False) -> None:
        """The next elements, sent as ``dtype``, into ``into`` on any device (cast, or added to it)."""
        size = dtype.itemsize
        nbytes = into.numel() * size
        if nbytes > self.left:
            raise PeerError(
                f"{self._landing.who} sent fewer bytes than its message needs",
                seen=f"{self.left} bytes left",
                expected=f"{nbytes} bytes",
            )
        if not add and into.dtype == dtype and nbytes <= CHUNK_BYTES and self._lies_here(into):
            self._wait(self._at + nbytes)
            there = self._flat.address + self._reference.offset + self._at
            self._landing.copy(into.data_ptr(), there, nbytes)
            self._at += nbytes
            self._end()
            return
        for piece in pieces(into, size):
            source = self._next(piece.numel() * size, dtype, tuple(piece.shape))
            if add:
                piece.add_(source if source.device == piece.device else source.to(piece.device))
            else:
                piece.copy_(source)
        self._end()

    def _lies_here(self, tensor: torch.Tensor) -> bool:
        return tensor.is_contiguous() and tensor.device == self.device

    def read_all(self) -> torch.Tensor:
        """The whole payload as bytes, in memory of its own."""
        whole = torch.empty(self.left, dtype=torch.uint8, device=self.device)
        for piece in pieces(whole, 1):
            piece.copy_(self._next(piece.numel(), torch.uint8, tuple(piece.shape)))
        self._end()
        return whole

    def _next(self, nbytes: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        self._wait(self._at + nbytes)
        offset, self._at = self._reference.offset + self._at, self._at + nbytes
        found = self._flat.view(offset, dtype, shape)
        return self._flat.copied(offset, dtype, shape) if found is None else found

    def _wait(self, nbytes: int) -> None:
        landing, number = self._landing, self._reference.number
        if nbytes <= self._ready:
            return
        self._ready = landing.board.ready(number)
        if nbytes <= self._ready:
            return
        patience = Patience(landing.timeout_s, landing.check)
        while (ready := landing.board.ready(number)) < nbytes:
            if ready > self._ready:
                self._ready = ready
                patience.progress()
            if not patience.pause():
                raise PeerError(
                    f"{landing.who} announced a value that its GPU did not finish in {landing.timeout_s:g} s"
                )
        self._ready = ready

    def _end(self) -> None:
        if not self.left:
            self._landing.took(self._reference.number)
