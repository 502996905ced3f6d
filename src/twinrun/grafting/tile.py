"""A payload that lies where it belongs in a frame: held until those of the other senders have come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from twinrun.errors import PeerError
from twinrun.grafting.frame import Frame, Share
from twinrun.grafting.landed import Landed
from twinrun.grafting.layer import Exporting
from twinrun.grafting.reference import Reference

if TYPE_CHECKING:
    from twinrun.grafting.landing import Landing, Pad


class Tile(Landed):
    """One sender's boxes of a value. Read like any payload, or held: then it is freed, or settled, by hand."""

    def __init__(self, landing: Landing, pad: Pad, reference: Reference, share: Share) -> None:
        super().__init__(landing, pad, reference)
        self.share = share
        self._part = 0
        self._held = False

    @property
    def frame(self) -> Frame | None:
        """What it is a part of."""
        return self._pad.frame

    @property
    def left(self) -> int:
        return 0 if self._held else super().left

    @property
    def exporter(self) -> Exporting:
        """Where its memory comes from."""
        return self._landing.exporter

    def hold(self) -> Tile:
        """Leave it where it is; it counts as read."""
        self._held = True
        return self

    def wait(self) -> None:
        """Until all of it is there."""
        self._wait(self._reference.nbytes)

    def gift(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """None: the memory is not this sender's alone."""
        return None

    def read_tensor(self, into: torch.Tensor, dtype: torch.dtype, *, add: bool = False) -> None:
        """As ``Landed.read_tensor``; its boxes one after the other."""
        if (
            self._part == len(self.share.boxes)
            or into.numel() * dtype.itemsize != self._box_bytes()
        ):
            raise PeerError(f"{self._landing.who} sent other boxes than its message needs")
        part = self._next_box()
        into.add_(part) if add else into.copy_(part)
        self._end()

    def read_all(self) -> torch.Tensor:
        """The whole payload as bytes, in memory of its own."""
        left = len(self.share.boxes) - self._part
        parts = [self._next_box().contiguous().view(-1).view(torch.uint8) for _ in range(left)]
        whole = torch.cat(parts)
        self._end()
        return whole

    def free(self) -> None:
        """All of it was read by work in the current stream, or is not wanted: the sender may go on."""
        self._landing.took(self._pad)

    def settle(self, frame: Frame) -> None:
        """As ``free``; the sender's next value goes to another frame, which nothing uses yet."""
        self._landing.settle(self._pad, frame)

    def _box_bytes(self) -> int:
        return self.share.boxes[self._part].volume * self.share.tiling.dtype.itemsize

    def _next_box(self) -> torch.Tensor:
        self.wait()
        self._at += self._box_bytes()
        box = self.share.boxes[self._part]
        self._part += 1
        return self._pad.export.memory[box.slices]

    def _end(self) -> None:
        if not self._held:
            super()._end()
