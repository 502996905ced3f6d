"""Pairs of which at least one side was recorded as statistics only (``--mode stats``)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from twinrun.comparison.measure import Ruler
from twinrun.comparison.result import Floor, Measured
from twinrun.numerics.dtypes import coarser
from twinrun.recorder.record import Record

Stats = Mapping[str, float]
_COUNTS = ("count", "zeros", "nans", "infs")
NOTE = "statistics only: equal statistics do not prove equal tensors"


def judge_statistics(
    a: Record, b: Record, ruler: Ruler
) -> tuple[Measured, float, Floor, str, tuple[str, ...]]:
    """(verdict, ratio, floor, reason, notes) of two records with statistics, never `equal`.

    The distance is that of L2, mean and standard deviation, each against the larger RMS; counts of
    NaNs and Infs must be the same.
    """
    one, two = _numbers(a), _numbers(b)
    form = coarser(a.dtype, b.dtype)
    elements = max(1, int(max(one.get("count", 1), two.get("count", 1))))
    rms = max(one.get("l2", 0.0), two.get("l2", 0.0)) / math.sqrt(elements)
    floor = ruler.floor(form, elements, rms)
    if any(one.get(name, 0) != two.get(name, 0) for name in ("count", "nans", "infs")):
        return "differs", math.inf, floor, "nonfinite", (NOTE, _told(one, two))
    apart = _apart(one, two)
    if form.exact:
        same = all(one.get(name) == two.get(name) for name in {*one, *two})
        return ("close" if same else "differs"), (0.0 if same else math.inf), floor, "", (NOTE,)
    ratio = apart / floor.l2 if floor.l2 else (math.inf if apart else 0.0)
    word: Measured = "close" if ratio <= 1 else "undecided" if ratio <= floor.k else "differs"
    notes = (NOTE,) if word == "close" else (NOTE, _told(one, two))
    return word, ratio, floor, "", notes


def _numbers(record: Record) -> Stats:
    """The statistics as floats; an infinity is text in the index, because JSON has none."""
    return {name: float(value) for name, value in (record.stats or {}).items()}


def _apart(one: Stats, two: Stats) -> float:
    count = max(1, int(one.get("count", 1)))
    scale = max(one.get("l2", 0.0), two.get("l2", 0.0)) / math.sqrt(count)
    if not scale:
        return 0.0
    l2 = abs(one.get("l2", 0.0) - two.get("l2", 0.0)) / math.sqrt(count)
    others = (abs(one.get(name, 0.0) - two.get(name, 0.0)) for name in ("mean", "std"))
    return max(l2, *others) / scale


def _told(one: Stats, two: Stats) -> str:
    names = ("l2", "mean", "std", "min", "max", *_COUNTS)
    apart = [n for n in names if one.get(n) != two.get(n)]
    return "; ".join(f"{name} {one.get(name)} against {two.get(name)}" for name in apart)
