"""The ``symmetric`` backend: kernels over torch's symmetric memory, inside one node."""

from __future__ import annotations

import torch
import torch.distributed as dist

from twinrun.collectives import symmetric_memory, tuning
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import GroupFacts
from twinrun.collectives.ipc_memory import fill
from twinrun.collectives.kernel_reducer import KernelReducer
from twinrun.collectives.symmetric_memory import SymmetricAllocation
from twinrun.collectives.workspace import Workspace
from twinrun.errors import UnavailableError
from twinrun.kernels.arguments import EMPTY_BYTE, SLOTS, workspace_bytes
from twinrun.kernels.compiler import compiler_version
from twinrun.kernels.driver import driver

ALGORITHMS = ("one_shot_push", "two_shot_push", "two_shot_pull")


def probe(device: torch.device) -> str | None:
    """Why this rank cannot run the kernels at all, or None. Opens nothing."""
    return why_no_kernels(device) or symmetric_memory.why_not(device)


def why_no_kernels(device: torch.device) -> str | None:
    """Why Twinrun's kernels cannot be compiled and started for ``device``, or None."""
    try:
        driver()
        compiler_version()
    except UnavailableError as error:
        return f"{error.summary} {error.seen or ''}".strip()
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "its kernels need compute capability 8.0"
    return None


def make(
    group: dist.ProcessGroup, exchange: Exchange, facts: GroupFacts, device: torch.device
) -> KernelReducer:
    """Allocate and map the workspace, on all ranks together."""
    slot = tuning.slot_bytes("symmetric", facts)
    held = SymmetricAllocation(group, device, workspace_bytes(slot))
    workspace = Workspace(held.addresses, slot, held.free)
    try:
        own = held.addresses[exchange.rank]
        fill(device, own, 0, SLOTS)
        fill(device, own + SLOTS, EMPTY_BYTE, workspace_bytes(slot) - SLOTS)
        # Nobody may send before every slot is empty.
        exchange.barrier()
        return KernelReducer(exchange, device, workspace, ALGORITHMS, facts.in_place is not False)
    except BaseException:
        workspace.close()
        raise
