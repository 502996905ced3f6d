"""Sums and peaks that grow chunk by chunk, combined in Python's double precision."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from twinrun.numerics.lift import lift

Number = float | int | bool | complex


@dataclass(frozen=True, slots=True)
class Spot:
    """One element: the measure's value there, its index in the logical tensor, both elements."""

    value: float
    index: tuple[int, ...]
    a: Number
    b: Number


@dataclass(slots=True)
class Part:
    """What one chunk adds. ``peak``, ``row_aa``, ``row_bb`` are [rows] float64: largest ``|a-b|``
    and sums of squares of each row; None where both sides hold the same bits."""

    aa: float
    bb: float
    ab: float
    dd: float = 0.0
    differing: int = 0
    peak: torch.Tensor | None = None
    row_aa: torch.Tensor | None = None
    row_bb: torch.Tensor | None = None
    nan: tuple[int, int] = (0, 0)
    inf: tuple[int, int] = (0, 0)
    nonfinite: tuple[int, int] = (0, 0)
    nans: tuple[int, int] = (0, 0)
    largest: float = 0.0  # largest finite magnitude; filled by the careful path only


@dataclass(slots=True)
class Tally:
    """The sums of all chunks so far."""

    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    dd: float = 0.0
    differing: int = 0
    nan_a: int = 0
    nan_b: int = 0
    inf_a: int = 0
    inf_b: int = 0
    nonfinite_a: int = 0
    nonfinite_b: int = 0
    nans_a: int = 0
    nans_b: int = 0
    largest: float = 0.0

    def add(self, part: Part) -> None:
        """Take a chunk in."""
        self.aa += part.aa
        self.bb += part.bb
        self.ab += part.ab
        self.dd += part.dd
        self.differing += part.differing
        self.nan_a += part.nan[0]
        self.nan_b += part.nan[1]
        self.inf_a += part.inf[0]
        self.inf_b += part.inf[1]
        self.nonfinite_a += part.nonfinite[0]
        self.nonfinite_b += part.nonfinite[1]
        self.nans_a += part.nans[0]
        self.nans_b += part.nans[1]
        self.largest = max(self.largest, part.largest)


@dataclass(slots=True)
class Peak:
    """The largest value seen and where; the first one wins among equals."""

    value: float = 0.0
    spot: Spot | None = field(default=None)

    def beaten_by(self, value: float) -> bool:
        """Whether `value` is larger than what is held (a NaN never is)."""
        return value > self.value

    def take(self, spot: Spot) -> None:
        """Hold this spot from now on."""
        self.value, self.spot = spot.value, spot


def unravel(offset: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of the element at a row-major offset."""
    index = []
    for size in reversed(shape):
        offset, at = divmod(offset, size)
        index.append(at)
    return tuple(reversed(index))


def item(flat: torch.Tensor, at: int) -> Number:
    """The element at an offset of a flat tensor, as a Python number."""
    kept = flat[at : at + 1]
    if kept.is_complex():
        real, imaginary = lift(kept, torch.float64).tolist()
        return complex(real, imaginary)
    if kept.dtype == torch.uint64:
        return int(kept.view(torch.int64)) % (1 << 64)
    to = torch.float64 if kept.dtype.is_floating_point else torch.int64
    found: float | int = lift(kept, to)[0].item()
    return bool(found) if kept.dtype == torch.bool else found
