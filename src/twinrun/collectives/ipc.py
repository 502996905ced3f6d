"""The ``ipc`` backend: kernels over plain device memory mapped by CUDA IPC handles.

The older way, for where symmetric memory cannot be had: every rank copies its input to where the
others can read it. ``one_stage``: a barrier, then each sums everything. ``two_stage``: a barrier,
each sums its shard, a barrier, each collects the shards.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from twinrun.collectives import tuning
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import GroupFacts
from twinrun.collectives.ipc_memory import PeerMemory, allocate, exchange_places, fill, place_of
from twinrun.collectives.kernel_reducer import KernelReducer
from twinrun.collectives.symmetric import why_no_kernels
from twinrun.collectives.workspace import Workspace
from twinrun.kernels.arguments import SLOTS, workspace_bytes

ALGORITHMS = ("one_stage", "two_stage")


def probe(device: torch.device) -> str | None:
    """Why this rank cannot run the kernels at all, or None. Opens nothing."""
    return why_no_kernels(device)


def make(
    group: dist.ProcessGroup, exchange: Exchange, facts: GroupFacts, device: torch.device
) -> KernelReducer:
    """Allocate the workspace and open the peers', on all ranks together."""
    workspace = shared_workspace(exchange, device, tuning.slot_bytes("ipc", facts), 0)
    try:
        return KernelReducer(exchange, device, workspace, ALGORITHMS)
    except BaseException:
        workspace.close()
        raise


def shared_workspace(
    exchange: Exchange, device: torch.device, slot_bytes: int, byte: int
) -> Workspace:
    """A workspace in plain device memory, its slots filled with ``byte``, on all ranks together."""
    own, free_own = allocate(device, workspace_bytes(slot_bytes))
    peers = PeerMemory(device)

    def free() -> None:
        peers.close()
        free_own()

    try:
        fill(device, own, 0, SLOTS)
        fill(device, own + SLOTS, byte, workspace_bytes(slot_bytes) - SLOTS)
        places = exchange_places(exchange, [place_of(own)])
        addresses = [
            own if rank == exchange.rank else peers.address(rank, place)
            for rank, (place,) in enumerate(places)
        ]
        # Nobody may send before every slot is filled.
        exchange.barrier()
        return Workspace(tuple(addresses), slot_bytes, free)
    except BaseException:
        free()
        raise
