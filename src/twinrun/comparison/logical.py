"""One logical tensor of one run, readable box by box without ever being whole in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch

from twinrun.comparison.assemble import boxes, read, summed_in
from twinrun.comparison.shards import Fetch
from twinrun.layout import Box, Group

SLICE_ELEMENTS = 1 << 20
"""Elements of one slice: views cost nothing, and a gathered slice stays a few MiB."""


@dataclass(frozen=True, slots=True)
class Logical:
    """A tensor of `shape` and `dtype`; `read` gives the values of one box, a view where it can.

    ``stored`` is the dtype in which the values were recorded, by torch's name: that of the addends
    where `dtype` is a sum's.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    stored: str
    read: Callable[[Box], torch.Tensor]

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return prod(self.shape)

    def whole(self) -> torch.Tensor:
        """All values at once: a view of a mapping or a new tensor."""
        return self.read(Box.whole(self.shape))


def of_tensor(tensor: torch.Tensor, stored: str | None = None) -> Logical:
    """A tensor that is at hand."""
    name = stored or str(tensor.dtype).removeprefix("torch.")
    return Logical(tuple(tensor.shape), tensor.dtype, name, lambda box: _cut(tensor, box))


def of_group(group: Group, fetch: Fetch, stored: str) -> Logical:
    """What the ranks of a group hold together; pending sums are added as they are read."""
    dtype = torch_dtype(stored)
    pending = any(cell.pending for cell in group.cells)
    return Logical(
        group.shape,
        summed_in(dtype) if pending else dtype,
        stored,
        lambda box: read(group, box, fetch),
    )


def slices(a: Logical, b: Logical) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Both tensors in row-major order, slice by slice; they have one shape."""
    for box in boxes(a.shape, SLICE_ELEMENTS):
        yield a.read(box), b.read(box)


def torch_dtype(name: str) -> torch.dtype:
    """torch's dtype of this name."""
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"no torch dtype is called {name!r}")
    return found


def _cut(tensor: torch.Tensor, box: Box) -> torch.Tensor:
    return tensor[box.slices] if box.shape and box.shape != tuple(tensor.shape) else tensor
