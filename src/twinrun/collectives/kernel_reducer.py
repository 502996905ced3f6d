"""What the ``symmetric`` and ``ipc`` backends have in common: kernels over one workspace."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twinrun.collectives import one_shot_push, two_shot_pull, two_shot_push
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import Plan
from twinrun.collectives.graph_rows import GraphRows
from twinrun.collectives.ipc_memory import shareable
from twinrun.collectives.kernel_set import KernelSet, Sharing, Watch
from twinrun.collectives.workspace import Workspace
from twinrun.env import variables as V
from twinrun.errors import PeerError, UsageError

# A launch counts elements in 32 bits.
_MOST_ELEMENTS = (1 << 32) - 64


class KernelReducer:
    """A ``Reducer`` whose algorithms are Twinrun's kernels.

    Takes over ``workspace`` and closes it. One stream at a time: calls on two streams at once need
    two ``AllReduce`` objects, since a workspace knows one order of calls.
    """

    def __init__(
        self,
        exchange: Exchange,
        device: torch.device,
        workspace: Workspace,
        algorithms: Sequence[str],
    ) -> None:
        self._exchange, self._device, self._workspace = exchange, device, workspace
        self._ranks = exchange.ranks
        self._size = exchange.size
        watch = _watch()
        self._timeout_s = watch.timeout_s if watch else 0.0
        self._kernels = KernelSet(
            workspace, exchange.rank, device, _sharing(exchange, device), watch
        )
        self._names: dict[torch.dtype, str] = {}
        pulled = [two_shot_pull.KERNEL] * (two_shot_pull.NAME in algorithms)
        self._kernels.load([_KERNELS[name] for name in algorithms if name in _KERNELS], pulled)
        reachable = pulled and all(exchange.gather_json(shareable(device)))
        self._rows = GraphRows(exchange, device) if reachable else None
        self._limits = {
            "one_shot_push": one_shot_push.limit_bytes(self._size, workspace.slot_bytes),
            "two_shot_push": two_shot_push.limit_bytes(self._size, workspace.slot_bytes),
            "one_stage": workspace.slot_bytes,
            "two_stage": workspace.slot_bytes // 2,
        }
        self._call = 0
        self._sizes: dict[int, int] = {}
        self._broken: str | None = None

    @property
    def workspace_bytes(self) -> int:
        """The workspace, and the table of captured addresses where there is one."""
        return self._workspace.nbytes + (self._rows.nbytes if self._rows else 0)

    def all_reduce(self, x: torch.Tensor, out: torch.Tensor, plan: Plan) -> None:
        """Enqueue the sum on the current stream. Allocates nothing."""
        if self._broken is not None:
            raise UsageError(f"this all-reduce cannot be used any more: {self._broken}.")
        order = "tree" if plan.order == "tree" else "ranks"
        dtype = self._names.get(x.dtype) or self._name(x.dtype)
        kernel = plan.algorithm
        if kernel == two_shot_pull.NAME:
            if self._pull(x, out, plan, order, dtype):
                return
            kernel = two_shot_push.NAME
        self._push(kernel, x, out, plan, order, dtype)
        if self._timeout_s:
            self._look(x.nbytes)

    def _push(
        self, kernel: str, x: torch.Tensor, out: torch.Tensor, plan: Plan, order: str, dtype: str
    ) -> None:
        width = x.element_size()
        source, target, left = x.data_ptr(), out.data_ptr(), x.numel()
        most = self._limits[kernel] // width
        name = _KERNELS[kernel]
        while left > 0:
            count = min(left, most)
            self._kernels.start(
                name, dtype, order, plan.blocks, plan.threads, source, target, count, 0, self._call
            )
            source += count * width
            target += count * width
            left -= count

    def _pull(self, x: torch.Tensor, out: torch.Tensor, plan: Plan, order: str, dtype: str) -> bool:
        """Read in place, where this is a capture and every rank's memory can be opened."""
        rows = self._rows
        if rows is None or x.numel() > _MOST_ELEMENTS:
            return False
        if not torch.cuda.is_current_stream_capturing():
            return False
        source, target = x.data_ptr(), out.data_ptr()
        row = rows.row(source, target)
        self._kernels.start(
            two_shot_pull.KERNEL, dtype, order, plan.blocks, plan.threads, source, target,
            x.numel(), row, self._call,
        )  # fmt: skip
        return True

    def end_capture(self) -> None:
        """Exchange the addresses of what was captured; in checked mode, look for a report."""
        if self._rows is not None:
            self._rows.end_capture()

    def _name(self, dtype: torch.dtype) -> str:
        self._names[dtype] = str(dtype).removeprefix("torch.")
        return self._names[dtype]

    def _look(self, nbytes: int) -> None:
        """Checked mode: wait for the call, and name the rank that did not arrive at it."""
        self._sizes[self._call] = nbytes
        if torch.cuda.is_current_stream_capturing():
            self._call += 1
            return
        torch.cuda.current_stream(self._device).synchronize()
        self._call += 1
        lost = self._kernels.lost
        if lost is None:
            return
        missing, stage, call = lost
        rank = self._ranks[missing]
        self._broken = f"rank {rank} did not arrive"
        raise PeerError(
            f"rank {rank} did not arrive at an all-reduce of {self._sizes.get(call, nbytes)} bytes.",
            seen=f"call {call}, stage {stage}: waited {self._timeout_s:g} s on the GPU",
            expected=f"ranks {list(self._ranks)} in the same all-reduce",
            do=f"look at what rank {rank} does ({V.ALL_REDUCE_TIMEOUT_S.name} is how long to wait)",
        )

    def close(self) -> None:
        """Free everything, after what this rank still has enqueued. Local, safe twice."""
        if self._broken == "it is closed":
            return
        self._broken = "it is closed"
        torch.cuda.synchronize(self._device)
        if self._rows is not None:
            self._rows.close()
            self._rows = None
        self._workspace.close()
        # Tensors once shared with a peer stay allocated until someone asks whether it let go.
        torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]


_KERNELS = {
    "one_shot_push": one_shot_push.KERNEL,
    "two_shot_push": two_shot_push.KERNEL,
    "one_stage": "ipc_one_stage",
    "two_stage": "ipc_two_stage",
}


def _sharing(exchange: Exchange, device: torch.device) -> Sharing:
    """How much of a GPU one kernel may take, agreed by the ranks: the least of each."""
    mine = [
        torch.cuda.get_device_properties(device).multi_processor_count,
        V.ALL_REDUCE_STREAMS.get(),
    ]
    told = exchange.gather_json(mine)
    return Sharing(min(answer[0] for answer in told), max(answer[1] for answer in told))


def _watch() -> Watch | None:
    if not V.ALL_REDUCE_CHECK.get():
        return None
    report = torch.zeros(4, dtype=torch.int32).pin_memory()
    return Watch(report, V.ALL_REDUCE_TIMEOUT_S.get())
