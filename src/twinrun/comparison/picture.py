"""What a point's error looks like: histogram, map, ranks and worst elements, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from twinrun.comparison.result import Scalar, SideName

Cells = tuple[tuple[float, ...], ...]
"""Rows of bins; infinite where NaN or Inf stands on one side only."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many elements err by how much, in steps of ``1 / per_decade`` of log10.

    Bin ``n`` holds errors from ``10 ** (lowest + n / per_decade)`` on; smaller and larger errors are
    in the outer bins. ``zeros`` are elements that do not differ, ``nonfinite`` those that are NaN or
    Inf on one side only.
    """

    lowest: int
    per_decade: int
    counts: tuple[int, ...]
    zeros: int
    nonfinite: int


@dataclass(frozen=True, slots=True)
class Heat:
    """The largest error in each bin of a tensor of ``rows`` x ``columns`` (leading dims x last dim)."""

    rows: int
    columns: int
    cells: Cells


@dataclass(frozen=True, slots=True)
class Element:
    """One element that errs much: where, both values, and its error."""

    index: tuple[int, ...]
    baseline: Scalar
    target: Scalar
    error: float


@dataclass(frozen=True, slots=True)
class RankPicture:
    """One rank's own tensor against what the other run has there.

    ``held`` is the part of the logical tensor that it holds, as text. ``addend``: its values are to be
    summed with other ranks', so that they alone are not the tensor.
    """

    rank: int
    held: str
    relative_l2: float
    addend: bool
    heat: Heat


@dataclass(frozen=True, slots=True)
class Picture:
    """One point's error; an error is ``|a-b|`` over the RMS of its row, the larger of both sides'.

    ``looked_at`` is less than ``elements`` where a large tensor was sampled, evenly. ``ranks`` are
    those of ``rank_side``; empty where one rank holds the tensor. ``notes`` say what is left out.
    """

    position: int
    elements: int
    looked_at: int
    histogram: Histogram
    heat: Heat
    worst: tuple[Element, ...]
    rank_side: SideName = "target"
    ranks: tuple[RankPicture, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures by the position of their row; ``refused`` says why a chosen row has none."""

    drawn: Mapping[int, Picture] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)
    limit: int = 0
