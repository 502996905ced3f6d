"""What the ``symmetric`` and ``ipc`` backends have in common: kernels over one workspace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from twinrun.collectives import one_shot_push, two_shot_pull, two_shot_push
from twinrun.collectives.algorithm import Start
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import Plan
from twinrun.collectives.graph_rows import GraphRows
from twinrun.collectives.kernel_set import KernelSet, Ready, Sharing, Watch
from twinrun.collectives.workspace import Workspace
from twinrun.env import variables as V
from twinrun.errors import PeerError, UsageError

# A launch counts elements in 32 bits.
_MOST_ELEMENTS = (1 << 32) - 64
# Plans are kept by AllReduce, which bounds them too.
_MOST_ROUTES = 4096


@dataclass(frozen=True, slots=True)
class _Route:
    """How a plan is carried out: in one launch up to ``most`` elements, else in pieces.

    ``pull`` reads in place, and is tried first where there is one.
    """

    plan: Plan
    dtype: torch.dtype
    ready: Ready
    most: int
    piece: int
    pull: Ready | None


class KernelReducer:
    """A ``Reducer`` whose algorithms are Twinrun's kernels.

    Takes over ``workspace`` and closes it. ``in_place``: what torch allocates can be read by every
    rank, so that captured calls may go without the workspace. One stream at a time: calls on two streams at once need
    two ``AllReduce`` objects, since a workspace knows one order of calls.
    """

    def __init__(
        self,
        exchange: Exchange,
        device: torch.device,
        workspace: Workspace,
        algorithms: Sequence[str],
        in_place: bool = False,
    ) -> None:
        self._exchange, self._device, self._workspace = exchange, device, workspace
        self._ranks = exchange.ranks
        self._size = exchange.size
        watch = _watch()
        self._timeout_s = watch.timeout_s if watch else 0.0
        self._kernels = KernelSet(
            workspace, exchange.rank, device, _sharing(exchange, device), watch
        )
        self._routes: dict[int, _Route] = {}
        pulled = [two_shot_pull.KERNEL] * (two_shot_pull.NAME in algorithms)
        self._kernels.load([_KERNELS[name] for name in algorithms if name in _KERNELS], pulled)
        self._rows = GraphRows(exchange, device) if pulled and in_place else None
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
        route = self._routes.get(id(plan))
        if route is None or route.plan is not plan or route.dtype is not x.dtype:
            route = self._route(x.dtype, plan)
        count = x.numel()
        if count <= route.most:
            route.ready.start(x.data_ptr(), out.data_ptr(), count, 0, self._call)
        elif not route.pull or not self._pull(x, out, route.pull):
            self._in_pieces(x, out, route)
        if self._timeout_s:
            self._look(x.nbytes)

    def starter(self, plan: Plan, dtype: torch.dtype, elements: int) -> Start:
        """``all_reduce`` for such tensors; the short way where it is one launch of one kernel."""
        route = self._route(dtype, plan)
        if self._timeout_s or elements > route.most:
            return partial(self.all_reduce, plan=plan)
        return route.ready.starter(elements)

    def _route(self, dtype: torch.dtype, plan: Plan) -> _Route:
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        order = "tree" if plan.order == "tree" else "ranks"
        told = str(dtype).removeprefix("torch."), order, plan.blocks, plan.threads
        in_place = plan.algorithm == two_shot_pull.NAME
        algorithm = two_shot_push.NAME if in_place else plan.algorithm
        pull = self._kernels.ready(two_shot_pull.KERNEL, *told) if in_place else None
        ready = self._kernels.ready(_KERNELS[algorithm], *told)
        piece = self._limits[algorithm] // dtype.itemsize
        route = _Route(plan, dtype, ready, 0 if in_place else piece, piece, pull)
        self._routes[id(plan)] = route
        return route

    def _in_pieces(self, x: torch.Tensor, out: torch.Tensor, route: _Route) -> None:
        """As many launches as the workspace's slots make necessary."""
        width = x.element_size()
        source, target, left = x.data_ptr(), out.data_ptr(), x.numel()
        while left > 0:
            count = min(left, route.piece)
            route.ready.start(source, target, count, 0, self._call)
            source += count * width
            target += count * width
            left -= count

    def _pull(self, x: torch.Tensor, out: torch.Tensor, ready: Ready) -> bool:
        """Read in place, where this is a capture and every rank's memory can be opened."""
        rows = self._rows
        if rows is None or x.numel() > _MOST_ELEMENTS:
            return False
        if not torch.cuda.is_current_stream_capturing():
            return False
        source, target = x.data_ptr(), out.data_ptr()
        ready.start(source, target, x.numel(), rows.row(source, target), self._call)
        return True

    def end_capture(self) -> None:
        """Exchange the addresses of what was captured; in checked mode, look for a report."""
        if self._rows is not None:
            self._rows.end_capture()

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
