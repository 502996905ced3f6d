"""The sending half of a direct channel: payloads pushed into pads, which are memory of the receiver."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twinrun.grafting.board import Board, ready_word
from twinrun.grafting.inside import Inside
from twinrun.grafting.layer import Layer, Post
from twinrun.grafting.packing import Flat, NoRoom, pack, pieces, place
from twinrun.grafting.patience import Patience
from twinrun.grafting.reference import CHUNK_BYTES, Reference
from twinrun.grafting.rooms import Pad, Rooms

_END_S = 2.0


class Push:
    """Puts payloads into one peer's pads, on the program's own stream; never waits for the device.

    Used by one thread at a time, but for ``know`` and ``leave``.
    """

    def __init__(self, layer: Layer, device: torch.device, board: Board, rooms: Rooms) -> None:
        self._layer, self.device, self._board = layer, device, board
        self._post: Post = layer.post(board, device)
        self._rooms = rooms
        self.know = rooms.know
        self._next = 0

    def put(self, tensors: Sequence[torch.Tensor], inside: Inside | None = None) -> Reference:
        """Copy ``tensors`` (any strides, any device) one after the other; where they lie then.

        ``inside``: each to its own place, where the receiver has memory for that. The copies run in the
        order of the current stream. NoRoom, PeerError.
        """
        total = 0
        for tensor in tensors:
            total += tensor.nbytes
        placed = None
        if inside is not None:
            placed = self._rooms.whole(inside, total, tensors[0].element_size())
        pad, flat, offset = self._rooms.any(total) if placed is None else placed
        number, self._next = self._next, self._next + 1
        with self._rooms.lock:
            if self._rooms.left:
                raise NoRoom("the receiver has left")
            pad.used += 1
            pad.message = number
            if inside is not None and placed is not None:
                for tensor, box in zip(tensors, inside.boxes, strict=True):
                    place(flat, offset, inside.shape, box, tensor)
                self._post.write(pad.number, ready_word(number, total))
            else:
                self._lay(tensors, flat, offset, pad, total)
        return Reference(pad.number, total, number)

    def _lay(
        self, tensors: Sequence[torch.Tensor], flat: Flat, offset: int, pad: Pad, total: int
    ) -> None:
        """Copy ``tensors`` one after the other, and say from time to time how many bytes are there."""
        done = told = 0
        for tensor in tensors:
            size = tensor.element_size()
            for piece in pieces(tensor, size):
                nbytes = piece.numel() * size
                if piece.is_contiguous() and piece.device == self.device:
                    here = flat.address + offset + done
                    self._layer.copy(self.device, here, piece.data_ptr(), nbytes)
                else:
                    pack(flat, offset + done, piece)
                done += nbytes
                if done == total or done - told >= CHUNK_BYTES:
                    told = done
                    self._post.write(pad.number, ready_word(pad.message, done))

    def busy(self) -> bool:
        """Whether something lies there that the peer has not taken."""
        return any(not self._rooms.freed(pad) for pad in self._rooms.pads() if pad.message >= 0)

    def leave(self) -> bool:
        """Write nothing more and close the peer's memory; False where a copy does not come to its end."""
        with self._rooms.lock:
            self._rooms.left = True
            patience = Patience(_END_S, lambda: None)
            while not all(map(self._written, self._rooms.pads())):
                if not patience.pause():
                    return False  # the device may still write there: mappings go with the process
            self._rooms.shut()
        return True

    def _written(self, pad: Pad) -> bool:
        return (
            pad.message < 0
            or self._rooms.freed(pad)
            or self._board.ready(pad.number, pad.message) == pad.nbytes
        )
