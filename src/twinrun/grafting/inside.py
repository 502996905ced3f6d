"""Where a sender's boxes go in the receiver's tensor, said with the order for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from twinrun.layout.box import Box

_MOST_ELEMENTS = 1 << 40


@dataclass(frozen=True, slots=True)
class Inside:
    """``boxes`` of a tensor of ``shape``; ``tiling``: the receiver's number for values put together like this."""

    tiling: int
    shape: tuple[int, ...]
    boxes: tuple[Box, ...]

    @property
    def elements(self) -> int:
        """How many the whole tensor has."""
        return prod(self.shape)

    @staticmethod
    def said(tiling: int, shape: Sequence[int], boxes: Sequence[Box]) -> dict[str, Any]:
        """As a message says it."""
        at = [list(box.starts) for box in boxes]
        return {"tiling": tiling, "shape": list(shape), "at": at}

    @classmethod
    def read(cls, body: Any, sent: Sequence[Box]) -> Inside:
        """From a message, for boxes of the same sizes as ``sent``; ValueError, KeyError for anything else."""
        tiling, shape = int(body["tiling"]), tuple(map(int, body["shape"]))
        starts = [tuple(map(int, start)) for start in body["at"]]
        boxes = [
            Box(start, tuple(map(sum, zip(start, box.shape, strict=True))))
            for start, box in zip(starts, sent, strict=True)
        ]
        whole = Box.whole(shape)
        if tiling < 0 or prod(shape) > _MOST_ELEMENTS or not all(map(whole.contains, boxes)):
            raise ValueError(f"boxes beyond a tensor of {list(shape)}")
        return cls(tiling, shape, tuple(boxes))
