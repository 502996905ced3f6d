"""A permutation in words: exchanged halves, interleaved pairs, blocks."""

from __future__ import annotations

from collections.abc import Sequence


def described(order: Sequence[int]) -> str:
    """What an order does; ``order[i]`` is the baseline's index that stands at the target's ``i``."""
    return (
        _interleaved(order)
        or _blocks(order)
        or f"the target holds the baseline's indices in the order {_short(order)}"
    )


def _interleaved(order: Sequence[int]) -> str:
    """Rotary layouts: within each head, halves against pairs of neighbours."""
    size = len(order)
    for head in (part for part in range(4, size + 1, 2) if size % part == 0):
        half = head // 2
        pairs = [i // 2 + half * (i % 2) for i in range(head)]
        halves = [2 * (i % half) + i // half for i in range(head)]
        for inner, told in (
            (pairs, "the target interleaves what the baseline holds as two halves"),
            (halves, "the target holds as two halves what the baseline interleaves"),
        ):
            if all(order[at] == at // head * head + inner[at % head] for at in range(size)):
                return f"{told}, within each {head} (rotary layout)"
    return ""


def _blocks(order: Sequence[int]) -> str:
    """Whole blocks that moved together, as large as they can be."""
    size = len(order)
    for block in sorted((b for b in range(1, size) if size % b == 0), reverse=True):
        starts = order[::block]
        whole = all(
            start % block == 0 and list(order[at : at + block]) == list(range(start, start + block))
            for at, start in zip(range(0, size, block), starts, strict=True)
        )
        if whole:
            moved = [start // block for start in starts]
            what = f"blocks of {block}" if block > 1 else "indices"
            return f"the target holds the baseline's {what} in the order {_short(moved)}"
    return ""


def _short(order: Sequence[int]) -> str:
    shown = ", ".join(map(str, order[:16]))
    return f"[{shown}{', ...' if len(order) > 16 else ''}]"
