"""The report of a comparison or of blame as one page of plain values, before it is HTML or PNG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from twinrun.comparison.picture import Picture
from twinrun.report.page import Field, Tone


@dataclass(frozen=True, slots=True)
class Section:
    """A headline with what belongs under it; ``position`` is the point that it is about, or 0."""

    words: str
    parts: tuple[str, ...]
    tone: Tone
    fields: tuple[Field, ...] = ()
    position: int = 0


@dataclass(frozen=True, slots=True)
class Isolated:
    """A module's own error at a point, given the baseline's inputs; both figures are relative L2."""

    error: float | None
    allowed: float | None
    state: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One point: where it stands, how far its sides lie apart, and its account in words.

    ``error`` and ``allowed`` are relative L2 (None: there is no figure), ``undecided_to`` is where
    "differs" begins, ``worst_allowed`` the floor of one element's error. ``layout`` is one line.
    """

    position: int
    step: int
    name: str
    occurrence: int
    recompute: bool
    verdict: str
    reason: str
    error: float | None
    allowed: float | None
    undecided_to: float | None
    worst_allowed: float | None
    layout: str
    fields: tuple[Field, ...]
    isolated: Isolated | None = None
    picture: Picture | None = None
    no_picture: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One of the two runs, as labelled facts."""

    label: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """A table of the page: a title, column headings and rows; a row's ``positions`` entry links it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    positions: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """Everything a report shows. ``sections`` come first, the verdict before all."""

    title: str
    tone: Tone
    sections: tuple[Section, ...]
    closing: tuple[Field, ...]
    next: tuple[str, ...]
    counts: Mapping[str, int]
    points: tuple[Dot, ...]
    runs: tuple[Run, ...]
    lists: tuple[Listed, ...] = ()
    notes: tuple[str, ...] = field(default=())
