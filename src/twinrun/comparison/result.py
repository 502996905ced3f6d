"""What a comparison found: frozen dataclasses of numbers and strings, no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scalar = float | int | bool | str
"""One element as a Python number; a complex element is its text, such as ``1+2j``."""

Measured = Literal["equal", "close", "undecided", "differs", "unmatched", "unreadable"]
"""What the numbers of one pair alone say (docs/verdicts.md)."""

Verdict = Literal[
    "equal", "close", "healed", "allowed", "undecided", "differs", "unmatched", "unreadable"
]
"""The last word on a point: ``healed`` and ``allowed`` are differences that count as agreement."""

VERDICTS: tuple[Verdict, ...] = (
    "equal", "close", "healed", "allowed", "undecided", "differs", "unmatched", "unreadable",
)  # fmt: skip
AGREEING: frozenset[Verdict] = frozenset(("equal", "close", "healed", "allowed"))

Overall = Literal["agree", "differ", "undecided", "unreadable", "nothing"]
FloorKind = Literal["exact", "first-order", "measured", "set"]
SideName = Literal["baseline", "target"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs, as it was read. ``mesh`` is text such as ``tp=2 dp=2``, or empty."""

    path: str
    ranks: int
    processes: int
    steps: int
    records: int
    nbytes: int
    mesh: str
    command: str
    versions: Mapping[str, str]
    complete: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of a pair: the logical tensor after assembling, and where its layout came from.

    ``shape`` and ``dtype`` are what was recorded, assembled but before a map's transforms; ``dims``
    is the layout as text or empty; ``layout`` is ``whole`` (one rank), ``annotation``, ``dtensor``,
    ``file``, ``replicated`` or ``inferred``; ``ranks`` are those whose records went into it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    dims: str
    layout: str
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Extreme:
    """The element where a measure is largest: its value, its index, and both tensors there."""

    value: float
    index: tuple[int, ...]
    baseline: Scalar
    target: Scalar


@dataclass(frozen=True, slots=True)
class Measures:
    """The numbers of one pair. ``None`` means not computed (pair at or below its floor, or n/a).

    ``relative_l2`` is ``|a-b| / max(|a|, |b|)``; ``worst`` is the largest ``|a-b|`` over the RMS of
    its last-dim row. ``nan`` and ``inf`` count elements non-finite on one side only, as
    (baseline only, target only). ``ulp`` is the ULP distribution: (upper bound, elements),
    the bounds being 0, 1, 3, 7 and so on; empty ranges are left out.
    """

    elements: int
    bits_equal: bool
    differing: int
    relative_l2: float
    worst: Extreme | None = None
    max_abs: Extreme | None = None
    max_relative: Extreme | None = None
    cosine: float | None = None
    norms: tuple[float, float] | None = None
    nan: tuple[int, int] = (0, 0)
    inf: tuple[int, int] = (0, 0)
    ulp: tuple[tuple[int, int], ...] | None = None

    @property
    def share(self) -> float:
        """The share of elements that differ, from 0 to 1."""
        return self.differing / self.elements if self.elements else 0.0


@dataclass(frozen=True, slots=True)
class Floor:
    """How far two right runs may lie apart at a point, for both measures.

    ``kind`` is ``exact`` (integers and bools), ``first-order``, ``measured`` (``--noise``) or ``set``
    (by glob). ``undecided`` reaches up to ``k`` times the floor. ``why`` tells how it came about.
    """

    l2: float
    worst: float
    k: float
    kind: FloorKind
    why: str


@dataclass(frozen=True, slots=True)
class Hint:
    """The one hypothesis that explains a difference, and what remains of the distance under it."""

    kind: str
    text: str
    residual: float


@dataclass(frozen=True, slots=True)
class Row:
    """One point, in execution order of the baseline (``position`` counts from 1).

    ``verdict`` is the last word, ``measured`` what the numbers alone say. ``reason`` is a short word
    when it is not the distance that decides: ``shape``, ``dtype``, ``nonfinite``, ``layout``,
    ``partial sum``, ``one side only``, ``unreadable``, ``tie``, ``after a tie``, ``factor``. ``ratio`` is the
    distance in units of the floor, the larger of both measures; above 1 is not close, above
    ``floor.k`` differs. For an unmatched point ``baseline`` or ``target`` is None and ``nearest`` a
    name that the other side does hold. ``inferred`` says what was inferred about a layout, empty if nothing was.
    """

    position: int
    step: int
    name: str
    occurrence: int
    recompute: bool
    kind: str
    verdict: Verdict
    measured: Measured
    reason: str = ""
    baseline: Operand | None = None
    target: Operand | None = None
    measures: Measures | None = None
    floor: Floor | None = None
    ratio: float | None = None
    inferred: str = ""
    hint: Hint | None = None
    nearest: str = ""
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether this point counts as agreement in the exit code."""
        return self.verdict in AGREEING

    @property
    def is_choice(self) -> bool:
        """Whether its values are picked, not computed: integers and bools."""
        return self.floor is not None and self.floor.kind == "exact"

    @property
    def point(self) -> str:
        """The point as text: ``model.layers.0.mlp:output`` with step and occurrence where not 0."""
        extra = [f"step {self.step}"] if self.step else []
        extra += [f"occurrence {self.occurrence}"] if self.occurrence else []
        extra += ["recomputed"] if self.recompute else []
        return f"{self.name} ({', '.join(extra)})" if extra else self.name


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first point that differs, how many points agreed before it, and the last few of them."""

    row: Row
    agreed: int
    last_agreed: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something broken inside one run, found without the other one.

    ``kind`` is ``replicas`` (equal by layout, not by value), ``nonfinite`` (the first NaN or Inf) or
    ``silent`` (a tap that did not fire on a rank whose peers have it).
    ``distance`` is the largest absolute difference between the replicas.
    """

    kind: Literal["replicas", "nonfinite", "silent"]
    side: SideName
    step: int
    name: str
    ranks: tuple[int, ...]
    text: str
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What `compare` returns: rows in execution order of the baseline, then target-only points."""

    baseline: Side
    target: Side
    rows: tuple[Row, ...]
    first: Divergence | None
    invariants: tuple[Invariant, ...]
    undecided_from: Row | None
    """Where every later pair is at best undecided, the first of them; else None."""
    options: Mapping[str, str]
    advice: tuple[str, ...] = ()
    """What to do next: command lines or sentences, most useful first."""
    problems: tuple[str, ...] = ()
    """What the reader of this result must know: incomplete captures, skipped steps, lost ranks."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Number of rows by verdict; every verdict is a key."""

    @property
    def pairs(self) -> int:
        """How many points were held side by side."""
        return sum(row.verdict not in ("unmatched", "unreadable") for row in self.rows)

    @property
    def exit_code(self) -> int:
        """0 agreement, 1 a difference, broken invariant or unmatched point, 2 no work, 3 undecided."""
        codes = {"agree": 0, "differ": 1, "nothing": 2, "unreadable": 2, "undecided": 3}
        return codes[self.verdict]

    @property
    def verdict(self) -> Overall:
        """The whole comparison in one word; a difference that was found outranks what is unreadable."""
        told = {row.verdict for row in self.rows}
        if not self.pairs:
            return "nothing"
        if self.invariants or told & {"differs", "unmatched"}:
            return "differ"
        if "unreadable" in told:
            return "unreadable"
        return "undecided" if "undecided" in told else "agree"
