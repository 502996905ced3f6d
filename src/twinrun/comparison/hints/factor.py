"""A constant factor: a scale forgotten, a sum reduced twice, a sign."""

from __future__ import annotations

import math

import torch

from twinrun.comparison.hints.case import Case, sample
from twinrun.comparison.result import Hint


def factor(case: Case) -> Hint | None:
    """The target is the baseline times a number; of a single element that says nothing."""
    if case.baseline.numel() < 2:
        return None
    guess = _ratio(*(sample(side) for side in (case.baseline, case.target)))
    if not guess or not case.promising(case.baseline * guess, case.target):
        return None
    a, b = case.baseline.reshape(-1), case.target.reshape(-1)
    ratio = _ratio(a, b)
    residual = case.explained(a * ratio, b)
    if residual is None:
        return None
    if abs(ratio + 1) < 1e-2 and (exact := case.explained(-a, b)) is not None:
        return Hint("sign", "the target is the baseline with its sign turned", exact)
    text = f"the target is the baseline times {ratio:.6g}{_meaning(ratio, len(case.ranks))}"
    return Hint("factor", text, residual)


def _ratio(a: torch.Tensor, b: torch.Tensor) -> float:
    """The factor that brings `a` closest to `b`; 0 where there is none."""
    square = float(a.double().dot(a.double()))
    ratio = float(a.double().dot(b.double())) / square if square else 0.0
    return ratio if math.isfinite(ratio) else 0.0


def _meaning(ratio: float, ranks: int) -> str:
    for number in range(2, 1025):
        for value, told in (
            (number, f"{number}"),
            (1 / number, f"1/{number}"),
            (math.sqrt(number), f"the square root of {number}"),
            (1 / math.sqrt(number), f"1 over the square root of {number}"),
        ):
            if math.isclose(abs(ratio), value, rel_tol=1e-4):
                return f" ({told}{_over_ranks(value, ranks)})"
    return ""


def _over_ranks(value: float, ranks: int) -> str:
    if value == ranks:
        return "; a sum over ranks taken twice would do that"
    return "; an average over ranks in place of a sum would do that" if value * ranks == 1 else ""
