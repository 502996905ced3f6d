"""Discrete choices: whether recorded indices are a top-k of recorded scores, and which rows they tip."""

from __future__ import annotations

from dataclasses import replace

import torch

from twinrun.comparison.assemble import as_integers
from twinrun.comparison.logical import Logical
from twinrun.layout import Box
from twinrun.numerics.lift import lift, measured_in

# Elements of the scores that are looked at together.
_CHUNK = 1 << 20


def rows_of(shape: tuple[int, ...]) -> int:
    """How many rows a tensor has: the product of all dims but the last; 0 without dims."""
    rows = 1 if shape else 0
    for size in shape[:-1]:
        rows *= size
    return rows


def is_choice(indices: torch.Tensor, scores: torch.Tensor) -> bool:
    """Whether every row of ``indices`` [.., k] names the k largest of that row of ``scores`` [.., n].

    In any order, and any of those that are exactly equal to the k-th. False where k is not below
    n (nothing was chosen), an index repeats or lies outside, a score is NaN, or rows do not match.
    """
    k, n = indices.shape[-1], scores.shape[-1]
    if not 0 < k < n or indices.numel() // k != scores.numel() // n:
        return False
    all_indices, all_scores = indices.reshape(-1, k), scores.reshape(-1, n)
    step = max(1, _CHUNK // n)
    return all(
        _chosen(all_indices[at : at + step], all_scores[at : at + step])
        for at in range(0, all_indices.shape[0], step)
    )


def _chosen(indices: torch.Tensor, scores: torch.Tensor) -> bool:
    k, n = indices.shape[-1], scores.shape[-1]
    index = indices.to(torch.int64)
    values = lift(scores, measured_in(scores.dtype, scores.dtype)).view(-1, n)
    if bool(((index < 0) | (index >= n)).any()) or bool(values.isnan().any()):
        return False
    chosen = torch.zeros(values.shape, dtype=torch.bool).scatter_(1, index, True)
    lowest = values.masked_fill(~chosen, torch.inf).amin(1)
    highest = values.masked_fill(chosen, -torch.inf).amax(1)
    return bool((chosen.sum(1) == k).all()) and bool((lowest >= highest).all())


def tipped(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of two index tensors [.., k] that name other sets, and those that are not the same: [rows] bools."""
    one, two = (side.reshape(-1, side.shape[-1]).to(torch.int64) for side in (a, b))
    other_set = (one.sort(-1).values != two.sort(-1).values).any(-1)
    return other_set, (one != two).any(-1)


def without(tensor: Logical, rows: torch.Tensor) -> Logical:
    """The tensor with these rows as zeros, read box by box; ``rows`` is [rows] bool."""
    out = rows.view(tensor.shape[:-1])

    def read(box: Box) -> torch.Tensor:
        values = tensor.read(box)
        kept = as_integers(values).clone()
        kept[out[box.slices[:-1]]] = 0
        return kept.view(values.dtype)

    return replace(tensor, read=read)
