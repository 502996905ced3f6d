"""Only part of a tensor differs: rows from some position on, or a few of them."""

from __future__ import annotations

import torch

from twinrun.comparison.hints.case import Case
from twinrun.comparison.result import Hint
from twinrun.numerics.tally import unravel


def region(case: Case) -> Hint | None:
    """A few rows differ, or along one dim an end, a stretch or a few indices; the rest agrees."""
    if case.baseline.shape != case.target.shape:
        return None
    return _rows(case) or _dims(case)


def _rows(case: Case) -> Hint | None:
    """Of all rows of the last dim, over several dims, at most an eighth differs."""
    shape = case.baseline.shape
    if len(shape) < 3 or not case.baseline.numel():
        return None
    a, b = (side.reshape(-1, shape[-1]) for side in (case.baseline, case.target))
    apart = (a - b).square_()
    wrong = _wrong(apart, torch.maximum(a.square(), b.square()), 0, case.floor.l2)
    if not wrong or 8 * len(wrong) > a.shape[0]:
        return None
    kept = torch.ones(a.shape[0], dtype=torch.bool)
    kept[wrong] = False
    residual = case.explained(a[kept], b[kept])
    if residual is None:
        return None
    shown = ", ".join(str(list(unravel(at, tuple(shape[:-1])))) for at in wrong[:4])
    more = ", ..." if len(wrong) > 4 else ""
    text = f"only {len(wrong)} of {a.shape[0]} rows differ{'s' if len(wrong) == 1 else ''}: {shown}{more}"
    return Hint("region", text, residual)


def _dims(case: Case) -> Hint | None:
    a, b = case.baseline, case.target
    apart = (a - b).square_()
    scale = torch.maximum(a.square(), b.square())
    for dim in range(a.dim()):
        size = a.shape[dim]
        wrong = _wrong(apart, scale, dim, case.floor.l2)
        if not wrong or len(wrong) * 2 > size + 1 + (size if _is_end(wrong, size) else 0):
            continue
        kept = torch.ones(size, dtype=torch.bool)
        kept[wrong] = False
        right = kept.nonzero().reshape(-1)
        if not right.numel():
            continue
        residual = case.explained(a.index_select(dim, right), b.index_select(dim, right))
        if residual is not None:
            return Hint("region", _told(wrong, size, dim), residual)
    return None


def _wrong(apart: torch.Tensor, scale: torch.Tensor, dim: int, floor: float) -> list[int]:
    others = [d for d in range(apart.dim()) if d != dim]
    distance = apart.sum(others) if others else apart
    size = scale.sum(others) if others else scale
    return torch.nonzero(distance > (floor * floor) * size).reshape(-1).tolist()


def _is_end(wrong: list[int], size: int) -> bool:
    return wrong[-1] == size - 1 and len(wrong) == size - wrong[0]


def _told(wrong: list[int], size: int, dim: int) -> str:
    first, last = wrong[0], wrong[-1]
    if first == 1 and _is_end(wrong, size):
        return f"along dim {dim} every position but the first differs"
    if first > 0 and _is_end(wrong, size):
        return f"along dim {dim} only positions from {first} of {size} on differ (mask, padding or window?)"
    if last - first + 1 == len(wrong):
        what = f"positions {first} to {last}" if len(wrong) > 1 else f"position {first}"
        return f"along dim {dim} only {what} of {size} differ{'s' if len(wrong) == 1 else ''}"
    shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
    return f"along dim {dim} only {len(wrong)} of {size} indices differ: {shown}"
