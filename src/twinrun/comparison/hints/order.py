"""The same values in another order: transposed, shifted, or permuted along a dim."""

from __future__ import annotations

from itertools import combinations, permutations

import torch

from twinrun.comparison.hints.case import Case
from twinrun.comparison.hints.permutation import described
from twinrun.comparison.result import Hint

# Matching indices of a dim takes a square table of so many.
_LONGEST_DIM = 4096
# Six dims have 720 orders; more are looked at by pairs only.
_MOST_DIMS = 5
_PROJECTIONS = 8
# Of projections whose norm is 1.
_SAME = 1e-6


def transposed(case: Case) -> Hint | None:
    """Two dims are exchanged, or the memory was read as if they were."""
    a, b = case.baseline, case.target
    if a.shape != b.shape:
        return _reordered(case)
    for i, j in combinations(range(a.dim()), 2):
        swapped = a.transpose(i, j)
        read = swapped.reshape(b.shape) if swapped.shape != b.shape else swapped
        if 1 in (a.shape[i], a.shape[j]) or not case.promising(read, b):
            continue
        residual = case.explained(read.contiguous(), b)
        if residual is not None:
            how = "" if swapped.shape == b.shape else ", its values then read in the old shape"
            return Hint(
                "transposed",
                f"the target is the baseline with dims {i} and {j} exchanged{how}",
                residual,
            )
    return None


def _reordered(case: Case) -> Hint | None:
    """Shapes that differ by the order of dims only."""
    a, b = case.baseline, case.target
    if sorted(a.shape) != sorted(b.shape) or a.dim() > _MOST_DIMS:
        return None
    for order in permutations(range(a.dim())):
        turned = a.permute(order)
        if (
            turned.shape == b.shape
            and (residual := case.explained(turned.contiguous(), b)) is not None
        ):
            return Hint(
                "transposed",
                f"the target is the baseline with its dims in the order {list(order)}",
                residual,
            )
    return None


def shifted(case: Case) -> Hint | None:
    """Everything lies one position further along a dim."""
    for dim, size in enumerate(case.baseline.shape):
        if size < 3:
            continue
        for by in (1, -1):
            early, late = (0, 1) if by > 0 else (1, 0)
            a = case.baseline.narrow(dim, early, size - 1)
            b = case.target.narrow(dim, late, size - 1)
            if (
                case.promising(a, b)
                and (residual := case.explained(a.contiguous(), b.contiguous())) is not None
            ):
                where = "later" if by > 0 else "earlier"
                return Hint(
                    "shifted",
                    f"the target is the baseline one position {where} along dim {dim}",
                    residual,
                )
    return None


def permuted(case: Case) -> Hint | None:
    """The indices of one dim stand in another order: blocks, heads, experts, rotary halves."""
    a, b = case.baseline, case.target
    if a.shape != b.shape:
        return None
    for dim in reversed(range(a.dim())):
        order = _order(a, b, dim) if 2 <= a.shape[dim] <= _LONGEST_DIM else None
        if order is None:
            continue
        moved = a.index_select(dim, order)
        residual = case.explained(moved, b) if case.promising(moved, b) else None
        if residual is not None:
            return Hint("permuted", f"along dim {dim} {described(order.tolist())}", residual)
    return None


def _order(a: torch.Tensor, b: torch.Tensor, dim: int) -> torch.Tensor | None:
    """For each index of the target the baseline's that lies nearest; None if that is no new order."""
    one, two = (_projected(side, dim) for side in (a, b))
    apart = torch.cdist(two, one)
    order = apart.argmin(1)
    size = a.shape[dim]
    if len(set(order.tolist())) != size:
        found = _among_equals(apart)
        if found is None:
            return None
        order = found
    return None if bool((order == torch.arange(size)).all()) else order


def _among_equals(apart: torch.Tensor) -> torch.Tensor | None:
    """An order where several indices hold the same values: each takes the first that is left.

    Rotary tables hold every frequency twice. None where more are wanted than there are.
    """
    taken: set[int] = set()
    order = []
    for row in apart:
        near = torch.nonzero(row <= row.min() + _SAME).reshape(-1).tolist()
        free = next((at for at in near if at not in taken), None)
        if free is None:
            return None
        taken.add(free)
        order.append(free)
    return torch.tensor(order)


def _projected(values: torch.Tensor, dim: int) -> torch.Tensor:
    """[size of dim, projections]: every index of the dim as a few random sums of its elements."""
    rows = values.movedim(dim, 0).reshape(values.shape[dim], -1)
    own = torch.Generator().manual_seed(0)  # the program's random state stays as it is
    basis = torch.randn(rows.shape[1], _PROJECTIONS, generator=own, dtype=torch.float32)
    found: torch.Tensor = rows.float() @ basis
    return found.div_(found.norm().clamp_(min=1e-30))
