"""AMD GPUs: aiter's custom all-reduce where aiter imports. It has not run on AMD hardware here."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist

from twinrun.collectives.algorithm import Start
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import GroupFacts, Plan
from twinrun.errors import UnavailableError

_MODULE = "aiter.dist.device_communicators.custom_all_reduce"


def probe(device: torch.device) -> str | None:
    """Why aiter cannot be used, or None."""
    try:
        import_module(_MODULE).CustomAllreduce  # noqa: B018 - asked whether it is there
    except (ImportError, AttributeError) as error:
        return f"aiter does not import ({error})"
    return None


def make(
    group: dist.ProcessGroup, exchange: Exchange, facts: GroupFacts, device: torch.device
) -> AiterReducer:
    """aiter's communicator for this group; ``UnavailableError`` where it disables itself."""
    made = import_module(_MODULE).CustomAllreduce(exchange.cpu_group, device)
    if getattr(made, "disabled", False):
        raise UnavailableError("aiter's custom all-reduce disabled itself.", seen=repr(device))
    return AiterReducer(made, group)


class AiterReducer:
    """aiter's custom all-reduce; RCCL for what it will not take."""

    workspace_bytes = 0

    def __init__(self, made: Any, group: dist.ProcessGroup) -> None:
        self._made = made
        self._group = group

    def all_reduce(self, x: torch.Tensor, out: torch.Tensor, plan: Plan) -> None:
        summed = self._made.custom_all_reduce(x)
        if summed is not None:
            out.copy_(summed)
            return
        if out is not x:
            out.copy_(x)
        dist.all_reduce(out, group=self._group)

    def starter(self, plan: Plan, dtype: torch.dtype, elements: int) -> Start:
        return partial(self.all_reduce, plan=plan)

    def end_capture(self) -> None:
        """Nothing: aiter registers graph inputs in its own capture context."""

    def close(self) -> None:
        """Close aiter's communicator, once."""
        if self._made is not None:
            self._made.close()
        self._made = None
