"""What the ranks bring to an all-reduce on GPUs, and what must come out, by torch's own operations."""

from __future__ import annotations

import torch
import torch.distributed as dist

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def part(rank: int, count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """What ``rank`` brings to call ``seed``: wide-range numbers, for odd seeds with special ones."""
    generator = torch.Generator("cuda").manual_seed(seed * 64 + rank)
    x = torch.randn(count, generator=generator, device="cuda")
    scale = torch.randint(-12, 12, (count,), generator=generator, device="cuda")
    x = torch.ldexp(x, scale).to(dtype)
    if seed % 2:
        kind = torch.randint(0, 400, (count,), generator=generator, device="cuda")
        x[kind == 0], x[kind == 1], x[kind == 2] = -0.0, float("inf"), float("nan")
        x.view(torch.int32 if dtype == torch.float32 else torch.int16)[kind == 3] = -1
        x[: count // 2] = torch.where(kind[: count // 2] > 3, -0.0, x[: count // 2])
    return x


def expected(parts: list[torch.Tensor], order: str) -> torch.Tensor:
    """The sum in the stated order, by torch's own operations."""
    if order == "ranks":
        total = parts[0].float()
        for more in parts[1:]:
            total = total + more.float()
        return total.to(parts[0].dtype)
    level = parts
    while len(level) > 1:
        even = len(level) // 2 * 2
        sums = [(level[i].float() + level[i + 1].float()) for i in range(0, even, 2)]
        level = [s.to(parts[0].dtype) for s in sums] + level[even:]
    return level[0]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bits, every NaN counting as one and the same."""
    integers = torch.int32 if a.dtype == torch.float32 else torch.int16
    both_nan = torch.isnan(a) & torch.isnan(b)
    return bool(((a.view(integers) == b.view(integers)) | both_nan).all())


def parts_of(count: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    return [part(rank, count, dtype, seed) for rank in range(dist.get_world_size())]
