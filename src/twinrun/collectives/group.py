"""The process group that an ``AllReduce`` is given."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from twinrun.errors import UsageError


def member(group: Any) -> dist.ProcessGroup:
    """``group``, or the default one; ``UsageError`` where there is none or this rank is not in it."""
    if not dist.is_available() or not dist.is_initialized():
        raise UsageError(
            "there is no process group.",
            seen="torch.distributed is not initialised",
            do="call torch.distributed.init_process_group first",
        )
    found: Any = dist.group.WORLD if group is None else group
    if not isinstance(found, dist.ProcessGroup):
        raise UsageError(
            "this rank is no member of the group.",
            seen=f"rank {dist.get_rank()}",
            do="make the AllReduce on the group's own ranks only",
        )
    return found


def libraries(group: dist.ProcessGroup) -> dict[str, str]:
    """The group's backend for each kind of device: ``{"cpu": "gloo", "cuda": "nccl"}``."""
    pairs = (part.partition(":") for part in dist.get_backend_config(group).split(","))
    return {device: backend for device, _, backend in pairs}
