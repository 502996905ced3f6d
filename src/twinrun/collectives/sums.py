"""Sums of several tensors in a stated order, rounded as that order says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_WIDE = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.float8_e4m3fn: torch.float32,
    torch.float8_e5m2: torch.float32,
    torch.float8_e4m3fnuz: torch.float32,
    torch.float8_e5m2fnuz: torch.float32,
}
# What torch itself adds in float32 and rounds once.
_ADDED_WIDE = (torch.bfloat16, torch.float16)
# Two's complement: the sum of unsigned numbers has the bits of the signed one, which torch can add.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


# Elements summed at a time where the total is wider than the parts, so that it stays in the cache.
_BLOCK = 64 << 10


def ordered_sum(parts: Sequence[torch.Tensor], order: str, out: torch.Tensor) -> None:
    """Write the sum of ``parts`` to ``out``, which overlaps none of them but perhaps the first.

    ``ranks``: left to right, accumulated in float32 for narrower floats (else in the dtype itself)
    and rounded once. ``tree``: neighbours in pairs, level by level, an odd last one going up
    alone, rounded to the dtype at every level: ``((0+1)+(2+3))``, ``((0+1)+2)``,
    ``(((0+1)+(2+3))+(4+5))``. All are flat and have one dtype and length. Integers wrap around.
    """
    signed = _SIGNED.get(out.dtype)
    if signed is not None:
        parts, out = [part.view(signed) for part in parts], out.view(signed)
    one_block = _tree if order == "tree" else _left_to_right
    if len(parts) == 1:
        out.copy_(parts[0])
    elif len(parts) == 2 or out.numel() <= _BLOCK or out.dtype not in _WIDE:
        one_block(parts, out)
    else:
        for *block, total in zip(
            *(torch.split(each, _BLOCK) for each in (*parts, out)), strict=True
        ):
            one_block(block, total)


def _left_to_right(parts: Sequence[torch.Tensor], out: torch.Tensor) -> None:
    wide = _WIDE.get(out.dtype)
    if wide is None or (len(parts) == 2 and out.dtype in _ADDED_WIDE):
        torch.add(parts[0], parts[1], out=out)
        for part in parts[2:]:
            out += part
        return
    total = parts[0].to(wide)
    for part in parts[1:]:
        total += part.to(wide)
    out.copy_(total)


def _tree(parts: Sequence[torch.Tensor], out: torch.Tensor) -> None:
    level = list(parts)
    while len(level) > 2:
        pairs = zip(level[0::2], level[1::2], strict=False)
        level = [_rounded(one, other) for one, other in pairs] + level[len(level) // 2 * 2 :]
    out.copy_(_rounded(level[0], level[1]))


def _rounded(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """One addition, rounded to the operands' dtype."""
    if one.dtype in _WIDE and one.dtype not in _ADDED_WIDE:
        return (one.to(torch.float32) + other.to(torch.float32)).to(one.dtype)
    return one + other
