"""A payload that lies in a pad: given to the program as it is, or copied out."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch

from twinrun.errors import PeerError
from twinrun.grafting.packing import Flat, pieces
from twinrun.grafting.patience import Patience
from twinrun.grafting.reference import CHUNK_BYTES, Reference

if TYPE_CHECKING:
    from twinrun.grafting.landing import Landing, Pad
    from twinrun.grafting.tile import Tile


class Landed:
    """One message's payload in a pad, never read before it is ready.

    Copies run in the order of the current stream; when all was read, the pad is freed in that order.
    """

    def __init__(self, landing: Landing, pad: Pad, reference: Reference) -> None:
        self._landing, self._pad, self._reference = landing, pad, reference
        self._at = 0
        self._ready = 0
        self.device = landing.device

    @property
    def left(self) -> int:
        return self._reference.nbytes - self._at

    def gift(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """The pad's own memory as a tensor that the caller owns; None where it has to be copied."""
        pad = self._pad
        if not pad.export.gift or self._at or self._reference.nbytes != pad.nbytes:
            return None
        if pad.nbytes < self._landing.least_gift_bytes:
            return None
        if dtype.itemsize * prod(shape) != pad.nbytes:
            return None
        self._wait(pad.nbytes)
        self._at = pad.nbytes
        return self._landing.give(pad, shape, dtype)

    def hold(self) -> Tile | None:
        """Leave it where it is, for later; None, since it has to be read now."""
        return None

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
            there = self._pad.export.address + self._at
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

    def read_all(self) -> torch.Tensor:
        """The whole payload as bytes, in memory of its own."""
        given = self.gift((self._reference.nbytes,), torch.uint8)
        if given is not None:
            return given
        whole = torch.empty(self.left, dtype=torch.uint8, device=self.device)
        for piece in pieces(whole, 1):
            piece.copy_(self._next(piece.numel(), torch.uint8, tuple(piece.shape)))
        self._end()
        return whole

    def _lies_here(self, tensor: torch.Tensor) -> bool:
        return tensor.is_contiguous() and tensor.device == self.device

    def _next(self, nbytes: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        self._wait(self._at + nbytes)
        at, self._at = self._at, self._at + nbytes
        flat = self._pad.flat
        if flat is None:
            flat = self._pad.flat = Flat(self._pad.export.raw())
        found = flat.view(at, dtype, shape)
        return flat.copied(at, dtype, shape) if found is None else found

    def _wait(self, nbytes: int) -> None:
        board, pad, number = self._landing.board, self._pad.number, self._reference.number
        if nbytes <= self._ready:
            return
        self._ready = board.ready(pad, number)
        if nbytes <= self._ready:
            return
        landing = self._landing
        patience = Patience(landing.timeout_s, landing.check)
        while (ready := board.ready(pad, number)) < nbytes:
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
            self._landing.took(self._pad)
