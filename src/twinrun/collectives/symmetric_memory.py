"""The one place that touches ``torch.distributed._symmetric_memory``, which is private to torch.

What is used of it, from torch 2.9 to 2.13: ``empty``, ``rendezvous`` and, of the handle,
``buffer_ptrs``, ``multicast_ptr``. NVLink multicast is never used: torch's rendezvous would make a
multicast object by default, so it is switched off around ours, and a pointer that exists all the
same is a reason to decline.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from twinrun.env import variables as V
from twinrun.errors import UnavailableError


class SymmetricAllocation:
    """``nbytes`` of this rank's memory, and the same of every peer's, mapped here.

    Made by all ranks of ``group`` at the same point; ``UnavailableError`` where torch cannot.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device, nbytes: int) -> None:
        try:
            import torch.distributed._symmetric_memory as symm_mem

            with V.TORCH_SYMM_MEM_DISABLE_MULTICAST.override(True), torch.cuda.device(device):
                self.tensor = symm_mem.empty(nbytes, dtype=torch.uint8, device=device)
                self._handle = symm_mem.rendezvous(self.tensor, group)
        except (ImportError, AttributeError, RuntimeError, NotImplementedError) as error:
            raise _refused(device, str(error).splitlines()[0]) from error
        if self._handle.multicast_ptr:
            self.free()
            raise _refused(device, "torch made a multicast object, which Twinrun must not use")
        self.addresses = tuple(int(address) for address in self._handle.buffer_ptrs)

    def barrier(self) -> None:
        """Enqueue a barrier between the ranks' GPUs, torch's own, on the current stream."""
        self._handle.barrier(channel=0)

    def free(self) -> None:
        """Give the memory back; once."""
        del self.tensor, self._handle


def why_not(device: torch.device) -> str | None:
    """Why this process has no symmetric memory on ``device``, or None. Opens nothing."""
    try:
        import torch.distributed._symmetric_memory as symm_mem
    except ImportError as error:
        return f"torch {torch.__version__} has no symmetric memory ({error})"
    missing = [name for name in ("empty", "rendezvous") if not hasattr(symm_mem, name)]
    if missing:
        return f"torch {torch.__version__} has no symmetric_memory.{missing[0]}"
    return None


def _refused(device: torch.device, seen: str) -> UnavailableError:
    return UnavailableError(
        "symmetric memory cannot be had.",
        seen=f"{device}: {seen}",
        expected="torch.distributed._symmetric_memory between GPUs that reach each other",
        do="TWINRUN_SYMMETRIC_ALL_REDUCE=0 falls back to CUDA IPC",
    )
