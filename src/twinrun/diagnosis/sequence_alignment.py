"""Two sequences of operators side by side: which of one is which of the other."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from twinrun.diagnosis.operator_file import Step

Pairs = list[tuple[int, int]]

_LARGEST = 1_000_000
_NAME, _ORIGIN, _SCALARS = 10, 3, 2
# Arguments that say how large a tensor is: under tensor parallelism ranks hold parts.
SIZES = frozenset(
    {"size", "sizes", "shape", "stride", "split_size", "split_sizes", "storage_offset", "repeats",
     "output_size", "normalized_shape", "end", "sections", "indices_or_sections", "length"}
)  # fmt: skip


def align(one: Sequence[Step], two: Sequence[Step]) -> Pairs:
    """Pairs of positions, rising on both sides: the most operators of one name, and the likest of them.

    A longest common subsequence in which equal names count most, then the inputs that come from
    outside the sequence, then scalar arguments. Beyond a million comparisons by name alone.
    """
    start = 0
    while start < min(len(one), len(two)) and _same(one[start], two[start]):
        start += 1
    left, right = len(one), len(two)
    while left > start and right > start and _same(one[left - 1], two[right - 1]):
        left, right = left - 1, right - 1
    middle = _middle(one[start:left], two[start:right])
    ends = zip(range(left, len(one)), range(right, len(two)), strict=True)
    return [
        *((at, at) for at in range(start)),
        *((a + start, b + start) for a, b in middle),
        *ends,
    ]


def likeness(pairs: Pairs, one: Sequence[Step], two: Sequence[Step]) -> float:
    """The share of computing operators that have a partner, from 0 to 1; 1 where there are none."""
    counted = [sum(not step.is_view for step in steps) for steps in (one, two)]
    paired = sum(not one[a].is_view for a, _ in pairs)
    return 2 * paired / sum(counted) if any(counted) else 1.0


def _same(a: Step, b: Step) -> bool:
    return a.name == b.name and a.arguments == b.arguments and _origins(a) == _origins(b)


def _origins(step: Step) -> list[str]:
    """Where its inputs come from, operators' results by that alone: their numbers may be shifted."""
    return ["op" if one.origin.startswith("op:") else one.origin for one in step.inputs]


def _middle(one: Sequence[Step], two: Sequence[Step]) -> Pairs:
    if not one or not two:
        return []
    if len(one) * len(two) > _LARGEST:
        names = [step.name for step in one], [step.name for step in two]
        blocks = SequenceMatcher(None, *names, autojunk=False).get_matching_blocks()
        return [(b.a + at, b.b + at) for b in blocks for at in range(b.size)]
    return _best(one, two)


def _best(one: Sequence[Step], two: Sequence[Step]) -> Pairs:
    """The pairs of the highest total score, by dynamic programming from the end."""
    rows, columns = len(one), len(two)
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for a in range(rows - 1, -1, -1):
        here, below, step = best[a], best[a + 1], one[a]
        for b in range(columns - 1, -1, -1):
            score = max(below[b], here[b + 1])
            if step.name == two[b].name:
                score = max(score, below[b + 1] + _score(step, two[b]))
            here[b] = score
    found, a, b = [], 0, 0
    while a < rows and b < columns:
        if one[a].name == two[b].name and best[a][b] == best[a + 1][b + 1] + _score(one[a], two[b]):
            found.append((a, b))
            a, b = a + 1, b + 1
        elif best[a][b] == best[a + 1][b]:
            a += 1
        else:
            b += 1
    return found


def _score(a: Step, b: Step) -> int:
    mine, theirs = set(_origins(a)), set(_origins(b))
    outer = len((mine & theirs) - {"op"}) - len((mine ^ theirs) - {"op"})
    return max(1, _NAME + _ORIGIN * outer + _SCALARS * (a.arguments == b.arguments))
