"""A constant added: positions that are off by one; the same row at every position: a bias taken twice."""

from __future__ import annotations

import math

from twinrun.comparison.hints.case import Case, sample
from twinrun.comparison.result import Hint

_LEAST_ROWS = 8
"""Of fewer rows, one more row of numbers explains too much."""


def offset(case: Case) -> Hint | None:
    """The target is the baseline plus one number, or plus one row along the last dim."""
    if case.baseline.shape != case.target.shape or not case.baseline.numel():
        return None
    return _number(case) or _row(case)


def _number(case: Case) -> Hint | None:
    a, b = case.baseline, case.target
    by = float((sample(b).double() - sample(a).double()).mean())
    if not by or not math.isfinite(by):
        return None
    if case.form.exact:
        by = float(round(by))
    if not by or not case.promising(a + by, b):
        return None
    residual = case.explained(a + by, b)
    if residual is None:
        return None
    more = "more" if by > 0 else "less"
    return Hint("offset", f"every element of the target is {abs(by):.6g} {more}", residual)


def _row(case: Case) -> Hint | None:
    a, b = case.baseline, case.target
    rows = a.numel() // a.shape[-1] if a.dim() else 0
    if rows < _LEAST_ROWS or a.shape[-1] < 2 or case.form.exact:
        return None
    flat = (b - a).reshape(rows, -1)
    # A first look at few rows: they are the same but for rounding where the hypothesis holds.
    by = flat[: 2 * _LEAST_ROWS].double().mean(0).to(a.dtype)
    if not case.promising(a + by, b):
        return None
    by = flat.double().mean(0).to(a.dtype)
    residual = case.explained(a + by, b)
    if residual is None:
        return None
    text = f"the same row is added at all {rows} positions: a bias taken twice, or one left out"
    return Hint("offset", text, residual)
