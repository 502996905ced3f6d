"""A point that only one run has: unmatched, but its replicas and values are still looked at."""

from __future__ import annotations

from twinrun.comparison.alignment import Held, Misfit
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.outcome import Broken, Outcome
from twinrun.comparison.pairing import Nearest, Pair
from twinrun.comparison.points import Points
from twinrun.comparison.result import Operand
from twinrun.errors import TwinrunError
from twinrun.numerics.distance import measure


def alone(pair: Pair, points: Points, other: Points, nearest: Nearest, layouts: Layouts) -> Outcome:
    """The outcome of a point without a partner; mappings are dropped when done."""
    on_baseline = bool(pair.baseline)
    point = pair.lead
    held = Held(points.view, points.records(point), layouts)
    outcome = Outcome(pair, held.first, "unmatched", "one side only")
    outcome.nearest = nearest.find(point.key, other)
    try:
        operand = _look(outcome, held, "baseline" if on_baseline else "target")
    except TwinrunError as error:
        outcome.measured, outcome.reason = "unreadable", "unreadable"
        outcome.notes += (error.summary,)
        operand = _plain(held)
    finally:
        held.release()
    if on_baseline:
        outcome.baseline = operand
    else:
        outcome.target = operand
    return outcome


def _look(outcome: Outcome, held: Held, side: str) -> Operand:
    try:
        stated = held.stated()
    except Misfit as misfit:
        outcome.notes += (misfit.text,)
        stated = None
    if stated is not None and stated.differences:
        outcome.broken = (Broken(side, stated.differences),)
    nans, nonfinite = _nonfinite(held)
    outcome.nans = (nans, 0) if side == "baseline" else (0, nans)
    outcome.nonfinite = (nonfinite, 0) if side == "baseline" else (0, nonfinite)
    return stated.operand() if stated is not None else _plain(held)


def _nonfinite(held: Held) -> tuple[int, int]:
    """NaNs and all non-finite elements, over every rank."""
    nans = nonfinite = 0
    for record in held.records:
        if not record.has_payload:
            stats = record.stats or {}
            nans += int(stats.get("nans", 0))
            nonfinite += int(stats.get("nans", 0)) + int(stats.get("infs", 0))
            continue
        tensor = held.tensor(record)
        found = measure(lambda t=tensor: [(t, t)], record.shape, tensor.dtype, tensor.dtype)  # type: ignore[misc]
        nans += found.nans[0]
        nonfinite += found.nonfinite[0]
    return nans, nonfinite


def _plain(held: Held) -> Operand:
    record = held.first
    ranks = tuple(one.rank for one in held.records)
    return Operand(
        record.name, record.shape, record.dtype, record.dims or "", record.dims_source, ranks
    )
