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
# Two's complement: the sum of unsigned numbers has the bits of the signed one, which torch can add.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def ordered_sum(parts: Sequence[torch.Tensor], order: str, out: torch.Tensor) -> None:
    """Write the sum of ``parts`` to ``out``, which may be one of them.

    ``ranks``: left to right, accumulated in float32 for narrower floats (else in the dtype itself)
    and rounded once. ``tree``: neighbours in pairs, level by level, an odd last one going up
    alone, rounded to the dtype at every level: ``((0+1)+(2+3))``, ``((0+1)+2)``,
    ``(((0+1)+(2+3))+(4+5))``. All have one dtype and shape. Integers wrap around.
    """
    signed = _SIGNED.get(out.dtype)
    if signed is not None:
        parts, out = [part.view(signed) for part in parts], out.view(signed)
    if len(parts) == 1:
        out.copy_(parts[0])
    elif order == "tree":
        _tree(parts, out)
    else:
        _left_to_right(parts, out)


def _left_to_right(parts: Sequence[torch.Tensor], out: torch.Tensor) -> None:
    wide = _WIDE.get(out.dtype)
    if wide is None:
        total = parts[0] + parts[1] if len(parts) > 2 else torch.add(parts[0], parts[1], out=out)
    elif len(parts) == 2 and out.dtype in (torch.bfloat16, torch.float16):
        torch.add(parts[0], parts[1], out=out)  # added in float32 and rounded once by torch itself
        return
    else:
        total = parts[0].to(wide)
        total += parts[1].to(wide)
    for part in parts[2:]:
        total += part if wide is None else part.to(wide)
    if total is not out:
        out.copy_(total)


def _tree(parts: Sequence[torch.Tensor], out: torch.Tensor) -> None:
    level = list(parts)
    while len(level) > 2:
        pairs = zip(level[0::2], level[1::2], strict=False)
        level = [_rounded(one, other) for one, other in pairs] + level[len(level) // 2 * 2 :]
    out.copy_(_rounded(level[0], level[1]))


def _rounded(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """One addition, rounded to the operands' dtype."""
    if one.dtype in _WIDE and one.dtype not in (torch.bfloat16, torch.float16):
        return (one.to(torch.float32) + other.to(torch.float32)).to(one.dtype)
    return one + other
