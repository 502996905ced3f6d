"""The library behind the process group (NCCL, gloo or another): what is left when no other fits."""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist

from twinrun.collectives.algorithm import Start
from twinrun.collectives.facts import Plan
from twinrun.collectives.ordered import gather_and_sum


class LibraryReducer:
    """``torch.distributed.all_reduce``, or an all-gather and an ordered sum where the plan says so."""

    workspace_bytes = 0

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._size = dist.get_world_size(group)

    def all_reduce(self, x: torch.Tensor, out: torch.Tensor, plan: Plan) -> None:
        if plan.algorithm == "gather_sum":
            gather_and_sum(x, out, plan.order, self._group, self._size)
            return
        if out is not x:
            out.copy_(x)
        dist.all_reduce(out, group=self._group)

    def starter(self, plan: Plan, dtype: torch.dtype, elements: int) -> Start:
        return partial(self.all_reduce, plan=plan)

    def end_capture(self) -> None:
        """Nothing: a library registers what it needs by itself."""

    def close(self) -> None:
        """Nothing: the process group is the program's own."""
