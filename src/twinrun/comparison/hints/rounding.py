"""One side is the other, rounded to a narrower dtype."""

from __future__ import annotations

import torch

from twinrun.comparison.hints.case import Case, sample
from twinrun.comparison.result import Hint
from twinrun.numerics.dtypes import format_of

_NARROW = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def rounding(case: Case) -> Hint | None:
    """Rounding the baseline gives the target, or the other way round."""
    if case.baseline.shape != case.target.shape:
        return None
    for name in _NARROW:
        if format_of(name).roundoff <= case.form.roundoff:
            continue
        to = getattr(torch, name)
        sides = (
            ("the target is the baseline", case.baseline, case.target),
            ("the baseline is the target", case.target, case.baseline),
        )
        for told, wide, narrow in sides:
            if not case.promising(_rounded(sample(wide), to), sample(narrow)):
                continue
            residual = case.explained(_rounded(wide, to), narrow)
            if residual is not None:
                return Hint("rounding", f"{told} rounded to {name}", residual)
    return None


def _rounded(values: torch.Tensor, to: torch.dtype) -> torch.Tensor:
    return values.to(to).to(values.dtype)
