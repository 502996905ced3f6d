"""What the ranks' own tensors tell: a missing all-reduce, or one shard that is wrong alone."""

from __future__ import annotations

import torch

from twinrun.comparison.hints.case import Case
from twinrun.comparison.result import Hint


def _same_on_all_ranks(case: Case) -> bool:
    """Whether the ranks hold the same values: parts of a sum would not be."""
    first, *others = case.ranks.values()
    return all(torch.equal(first, own) for own in others)


def rank_sum(case: Case) -> Hint | None:
    """The sum of the target's ranks, who hold a part each, equals the baseline."""
    if len(case.ranks) < 2 or _same_on_all_ranks(case):
        return None
    total = sum(tensor for _, tensor in sorted(case.ranks.items()))
    residual = case.explained(case.baseline, total)  # type: ignore[arg-type]
    if residual is None:
        return None
    text = (
        "the sum of the target's ranks equals the baseline "
        f"(relative L2 {residual:.1e}): an all-reduce is missing after this point"
    )
    return Hint("partial sum", text, residual)


def one_shard(case: Case) -> Hint | None:
    """Every rank's part agrees but one's."""
    if len({part.rank for part in case.parts}) < 2:
        return None
    residuals: dict[int, float | None] = {}
    for part in case.parts:
        found = case.explained(case.baseline[part.index], case.target[part.index])
        known = residuals.get(part.rank, 0.0)
        residuals[part.rank] = None if found is None or known is None else max(known, found)
    wrong = [rank for rank, found in residuals.items() if found is None]
    if len(wrong) != 1:
        return None
    kept = max(found for found in residuals.values() if found is not None)
    boxes = [_told(part.index) for part in case.parts if part.rank == wrong[0]]
    text = f"only rank {wrong[0]}'s part differs ({', '.join(boxes[:4])}), the others agree"
    return Hint("one shard", text, kept)


def one_replica(case: Case) -> Hint | None:
    """Every rank should hold the whole, and some do."""
    if len(case.ranks) < 2:
        return None
    found = {rank: case.explained(case.baseline, own) for rank, own in case.ranks.items()}
    wrong = [rank for rank, residual in found.items() if residual is None]
    right = [residual for residual in found.values() if residual is not None]
    if not right or not wrong:
        return None
    ranks = ", ".join(map(str, wrong))
    text = (
        f"only rank{'s' if len(wrong) > 1 else ''} {ranks} of {len(found)} differ from the baseline"
    )
    return Hint("one shard", text, max(right))


def _told(index: tuple[slice, ...]) -> str:
    return f"[{', '.join(f'{part.start}:{part.stop}' for part in index)}]"
