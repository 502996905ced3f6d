"""The sum in a stated order where only a library is left: an all-gather, then the sum."""

from __future__ import annotations

import torch
import torch.distributed as dist

from twinrun.collectives.sums import ordered_sum

# Bytes that all ranks' parts together may hold at a time.
_GATHERED_BYTES = 64 << 20


def gather_and_sum(
    x: torch.Tensor, out: torch.Tensor, order: str, group: dist.ProcessGroup, size: int
) -> None:
    """Write the sum over the group's ranks, in ``order``, to ``out``; contiguous, may be ``x``.

    Gathers bytes, so that it works for dtypes that the library itself cannot add. Each rank holds
    at most 64 MiB of gathered parts.
    """
    flat, total = x.reshape(-1), out.view(-1)
    step = max(1, _GATHERED_BYTES // (size * x.element_size()))
    for begin in range(0, flat.numel(), step):
        mine = flat[begin : begin + step]
        rows = torch.empty((size, mine.numel()), dtype=x.dtype, device=x.device)
        dist.all_gather_into_tensor(
            rows.view(-1).view(torch.uint8), mine.view(torch.uint8), group=group
        )
        ordered_sum(rows.unbind(0), order, total[begin : begin + step])
