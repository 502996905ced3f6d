"""Tries the hypotheses on the first divergence and some more points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import prod

import torch

from twinrun.comparison.alignment import Held, Misfit, Side, align
from twinrun.comparison.hints.case import Case, Part
from twinrun.comparison.hints.factor import factor
from twinrun.comparison.hints.offset import offset
from twinrun.comparison.hints.order import permuted, shifted, transposed
from twinrun.comparison.hints.ranks import one_replica, one_shard, rank_sum
from twinrun.comparison.hints.region import region
from twinrun.comparison.hints.rounding import rounding
from twinrun.comparison.hints.swapped import swapped
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.logical import Logical
from twinrun.comparison.outcome import Outcome
from twinrun.comparison.points import Point, Points
from twinrun.comparison.result import Floor, Hint
from twinrun.errors import TwinrunError
from twinrun.numerics.dtypes import coarser
from twinrun.numerics.lift import lift, measured_in

HINTED = ("first", "all")
"""Which differences are explained: the first and `MORE` after it, or all."""
MORE = 20
LARGEST = 1 << 24
"""Elements above which a tensor is not explained: hypotheses need several copies of it."""
# So many other tensors of the target are held against one that differs.
_SWAPS = 32

Hypothesis = Callable[[Case], Hint | None]
HYPOTHESES: tuple[Hypothesis, ...] = (
    rank_sum, factor, offset, shifted, transposed, rounding, permuted, swapped, one_shard, one_replica, region,
)  # fmt: skip
"""In this order, those that explain part of a tensor last; the first that explains the difference down to the floor is told."""
ANY_SHAPE: tuple[Hypothesis, ...] = (transposed, swapped)
"""Those that hold where the two shapes are not the same, too."""


def add_hints(
    outcomes: Sequence[Outcome], runs: tuple[Points, Points], layouts: Layouts, which: str
) -> None:
    """Fill in `Outcome.hint` where a hypothesis holds. Mappings are dropped when done."""
    wanted = [one for one in outcomes if one.final == "differs" and _two_sided(one)]
    if which == "first":
        wanted = wanted[: MORE + 1]
    alike = _alike(outcomes)
    for outcome in wanted:
        rule = outcome.pair.rule
        if outcome.hint is not None or (rule is not None and not rule.renames):
            continue
        sides = (
            Held(runs[0].view, runs[0].records(outcome.pair.baseline[0]), layouts),
            Held(runs[1].view, runs[1].records(outcome.pair.target[0]), layouts),
        )
        try:
            _explain(outcome, *sides, partial(_others, outcome, alike, runs, layouts))
        except (Misfit, TwinrunError):
            continue  # what cannot be read or laid out is told by its own row
        finally:
            for held in sides:
                held.release()


def _two_sided(outcome: Outcome) -> bool:
    return bool(outcome.pair.baseline and outcome.pair.target)


def _explain(
    outcome: Outcome, one: Held, two: Held, others: Callable[[], Iterable[tuple[str, torch.Tensor]]]
) -> None:
    if not all(record.has_payload for held in (one, two) for record in held.records):
        return
    sides = align(one, two)
    a, b = sides[0].groups[0], sides[1].groups[0]
    if max(a.elements, b.elements) > LARGEST:
        outcome.notes += (f"hints not tried: more than {LARGEST:,} elements",)
        return
    form = coarser(a.stored, b.stored)
    floor = outcome.floor or Floor(form.roundoff, form.roundoff, 1.0, "first-order", "one rounding")
    wide = measured_in(a.dtype, b.dtype)
    kept = torch.float64 if wide == torch.int64 else wide
    case = Case(
        _values(a, kept), _values(b, kept), floor, form,
        _parts(sides[1]), _own(sides[1], a.shape, kept), others,
    )  # fmt: skip
    if not (torch.isfinite(case.baseline).all() and torch.isfinite(case.target).all()):
        return
    tests = HYPOTHESES if a.shape == b.shape else ANY_SHAPE
    outcome.hint = next((h for test in tests if (h := test(case)) is not None), None)


def _values(logical: Logical, to: torch.dtype) -> torch.Tensor:
    values = lift(logical.whole(), to)
    return values.view(logical.shape if values.numel() == logical.elements else (-1,))


def _parts(side: Side) -> tuple[Part, ...]:
    if side.placement is None:
        return ()
    group = side.placement.groups[0]
    return tuple(
        Part(rank, piece.logical.slices)
        for rank, pieces in group.pieces.items()
        for piece in pieces
        if piece.logical.shape != group.shape
    )


def _own(side: Side, shape: tuple[int, ...], to: torch.dtype) -> dict[int, torch.Tensor]:
    """Each rank's own tensor where all have the whole's shape."""
    records = side.held.records
    whole = len(records) > 1 and all(record.shape == shape for record in records)
    if not whole or len(records) * prod(shape) > LARGEST:
        return {}
    return {r.rank: lift(side.held.tensor(r), to).view(shape) for r in records}


def _alike(outcomes: Sequence[Outcome]) -> dict[object, list[Outcome]]:
    """Differing points by step, shape and dtype: only those can have been exchanged."""
    found: dict[object, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        if one.final in ("differs", "unmatched") and one.target is not None:
            found[one.pair.lead.key.step, one.target.shape, one.target.dtype].append(one)
    return found


def _others(
    outcome: Outcome,
    alike: dict[object, list[Outcome]],
    runs: tuple[Points, Points],
    layouts: Layouts,
) -> Iterator[tuple[str, torch.Tensor]]:
    assert outcome.target is not None and outcome.baseline is not None
    key = (outcome.pair.lead.key.step, outcome.baseline.shape, outcome.target.dtype)
    around = [one for one in alike[key] if one is not outcome and one.pair.target]
    at = next((i for i, one in enumerate(alike[key]) if one is outcome), 0)
    for one in around[max(0, at - _SWAPS // 2) : at + _SWAPS // 2]:
        yield from _tensor(one.pair.target[0], runs[1], layouts)


def _tensor(point: Point, points: Points, layouts: Layouts) -> Iterator[tuple[str, torch.Tensor]]:
    held = Held(points.view, points.records(point), layouts)
    try:
        side = held.stated()
        if side is not None and held.first.has_payload and len(side.groups) == 1:
            found = side.groups[0].whole()
            yield point.key.name, lift(found, torch.float32).view(found.shape)
    except (Misfit, TwinrunError):
        return
    finally:
        held.release()
