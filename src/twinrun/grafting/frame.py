"""Memory of a whole value that several senders fill, each its own boxes: nothing is left to put together.

For each of its messages a sender has a pad, and every pad for such values stands for a part of a frame.
What the senders put for one point becomes the program's tensor where it lies in one frame, which is so as
long as all of them keep the same order; the pads then stand for other memory, together. Where it lies in
several it is copied out of them, and their pads stand for one frame from then on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from twinrun.errors import UnavailableError
from twinrun.grafting.exporting import Export
from twinrun.grafting.layer import Exporting
from twinrun.layout.box import Box

if TYPE_CHECKING:
    from twinrun.grafting.landing import Landing, Pad
    from twinrun.grafting.tile import Tile


HANDS = threading.RLock()
"""held while pads of this process change hands: those of several senders may stand for one memory"""


class Tiling:
    """Values that the same boxes of the same senders make up, without a gap and without a sum.

    Whatever their names: they share the memory that is open for them.
    """

    def __init__(self, number: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.number, self.shape, self.dtype = number, shape, dtype
        self.frames: list[Frame] = []

    def share(self, boxes: Sequence[Box]) -> Share:
        """One sender's part of it."""
        nbytes = sum(box.volume for box in boxes) * self.dtype.itemsize
        return Share(self, tuple(boxes), nbytes)

    def join(self, landing: Landing) -> Frame:
        """A frame in which this sender has no pad yet; UnavailableError where there is no memory for one."""
        for frame in self.frames:
            if landing not in frame.pads and frame.exporter is landing.exporter:
                return frame
        return Frame(self, landing.exporter)

    def memory(self, exporter: Exporting) -> Export:
        """Memory for one value."""
        export = exporter.export(self.shape, self.dtype)
        if not export.gift:
            exporter.free(export)
            raise UnavailableError("only memory that torch can share is filled by several senders")
        return export


@dataclass(frozen=True, slots=True)
class Share:
    """One sender's boxes of a tiling, as they lie in the whole, in the order in which it sends them."""

    tiling: Tiling
    boxes: tuple[Box, ...]
    nbytes: int


class Frame:
    """One such memory, and the pad that each sender fills a part of it through.

    UnavailableError where there is no memory for it.
    """

    def __init__(self, tiling: Tiling, exporter: Exporting) -> None:
        self.tiling, self.exporter = tiling, exporter
        self.export = tiling.memory(exporter)
        self.pads: dict[Landing, Pad] = {}
        tiling.frames.append(self)

    def enter(self, landing: Landing, pad: Pad) -> None:
        """A sender fills its part through this pad."""
        self.pads[landing] = pad
        pad.frame = self

    def leave(self, landing: Landing) -> None:
        """A sender fills its part no more; without any sender the memory is let go."""
        self.pads.pop(landing).frame = None
        if not self.pads:
            self.tiling.frames.remove(self)

    def give(self) -> torch.Tensor:
        """All of it as a tensor that the caller owns; the pads stand for other memory, or are no more."""
        made = self.export.given(self.tiling.shape, self.tiling.dtype)
        self.exporter.used(self.export)
        with HANDS:
            try:
                self.export = self.tiling.memory(self.exporter)
            except UnavailableError:
                for landing, pad in list(self.pads.items()):
                    landing.lose(pad)
            else:
                for landing, pad in self.pads.items():
                    landing.move(pad, self.export)
        return made


def common(tiles: Sequence[Tile]) -> Frame | None:
    """The frame that all of ``tiles`` are in, if nobody else fills a part of it."""
    frame = tiles[0].frame
    if frame is None or len(frame.pads) != len(tiles):
        return None
    return frame if all(tile.frame is frame for tile in tiles) else None


def bring_together(tiles: Sequence[Tile]) -> None:
    """Free what was copied out of several frames, so that the next values come in one."""
    frames, exporters = {tile.frame for tile in tiles}, {tile.exporter for tile in tiles}
    if len(frames) > 1 and len(exporters) == 1:
        with contextlib.suppress(UnavailableError), HANDS:
            together = Frame(tiles[0].share.tiling, tiles[0].exporter)
            for tile in tiles:
                tile.settle(together)
            return
    for tile in tiles:
        tile.free()
