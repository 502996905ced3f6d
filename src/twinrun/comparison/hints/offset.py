"""A constant added: positions that are off by one, a bias taken twice."""

from __future__ import annotations

import math

from twinrun.comparison.hints.case import Case, sample
from twinrun.comparison.result import Hint


def offset(case: Case) -> Hint | None:
    """The target is the baseline plus one number."""
    a, b = case.baseline, case.target
    if a.shape != b.shape or not a.numel():
        return None
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
