"""Which rank this process is, as far as can be told without asking anybody."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from twinrun.env import variables as V
from twinrun.errors import VariableError


@dataclass(frozen=True, slots=True)
class Standing:
    """A rank, the number of ranks, and who says so: torch.distributed, environment or none."""

    rank: int = 0
    world_size: int = 1
    source: str = "none"


def standing() -> Standing:
    """torch.distributed's rank once it is initialised, else ``RANK``, else 0."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Standing(distributed.get_rank(), distributed.get_world_size(), "torch.distributed")
    try:
        rank, world_size = V.RANK.get(), V.WORLD_SIZE.get()
    except VariableError:
        return Standing()
    return Standing() if rank is None else Standing(rank, world_size or rank + 1, "environment")
