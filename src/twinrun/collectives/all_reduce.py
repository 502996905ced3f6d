"""``AllReduce(group)``: what a user holds. Chooses by plan, owns its workspaces, closes explicitly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

import torch
import torch.distributed as dist

from twinrun.collectives import quick
from twinrun.collectives.algorithm import Reducer, Start
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import Plan, Request
from twinrun.collectives.group import libraries, member
from twinrun.collectives.line import Line
from twinrun.collectives.nothing import NothingReducer
from twinrun.collectives.wishes import read_wishes
from twinrun.env import environment
from twinrun.env.log import logger
from twinrun.errors import PeerError, UsageError


class Step(NamedTuple):
    """The short way for tensors of one shape, dtype and device.

    ``start`` sums; ``allocate(shape, strides, dtype)`` makes an output, where ``here`` is the
    current device or None.
    """

    start: Start
    allocate: quick.Allocate
    here: int | None
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


# Shapes vary without bound in a server; a plan is cheap to make again.
_MOST_PLANS = 4096
_announced: set[str] = set()
current_device = quick.current_device()


class AllReduce:
    """The sum over a process group, by the fastest backend that is safe, in a stated order.

    ``y = ar(x)`` sums out of place, ``ar(x, out=x)`` in place. Every rank of ``group`` (None: the
    default group) makes it at the same point and then calls it in the same order with tensors of
    one dtype and number of elements. ``order`` is ``ranks`` (default), ``tree`` or ``any``;
    ``backend`` asks for one by name; ``deterministic`` insists on the order also where only a
    library is left; ``device`` says for which device workspaces are made now, others on their first
    call. Where an argument is None its variable decides (docs/env.md).

    The guard: in a job of several nodes the symmetric-memory all-reduce is switched off, because it
    reaches one node only; groups inside a node then take IPC, groups across nodes the library.
    ``twinrun launch`` decides this for every process; a program started without it decides the
    same when its first ``AllReduce`` is made, and rank 0 says so once.

    Not differentiable, not for several threads at once. Use it as a context manager or call
    ``close()``; ranks may close in any order, and nothing is done when it is garbage-collected.

    Raises UsageError for a wrong argument, PeerError where ranks cannot agree or one is missing,
    LaunchError and UnavailableError where a backend asked for by name cannot be had.
    """

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        *,
        order: str | None = None,
        backend: str | None = None,
        deterministic: bool | None = None,
        device: torch.device | str | int | None = None,
    ) -> None:
        self._group = member(group)
        self._wishes = read_wishes(order, backend, deterministic, environment())
        self._libraries = libraries(self._group)
        self._lines: dict[torch.device, Line] = {}
        self._chosen: dict[tuple[object, ...], tuple[Reducer, Plan]] = {}
        self._steps: dict[tuple[object, ...], Step] = {}
        self._nothing = NothingReducer()
        self._registers = self._told_order = False
        self._closed = False
        self._exchange = Exchange(self._group)
        self._check = self._wishes.check and self._exchange.size > 1
        try:
            self._line(self._device(device))
        except BaseException:
            self.close()
            raise

    def __call__(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The sum of the ranks' ``x``, in ``out`` (``x`` itself, or a new contiguous tensor).

        On CUDA it is enqueued on the current stream. 0 elements and groups of one rank send
        nothing.
        """
        step = self._steps.get((x.shape, x.dtype, x.device))
        if step is None or x.requires_grad or not x.is_contiguous():
            return self._carefully(x, out)
        start, allocate, here, shape, strides, dtype = step
        if out is None:
            if here is None or current_device() == here:
                out = allocate(shape, strides, dtype)
            else:
                out = torch.empty_like(x)
        elif out is not x:
            _fits(x, out)
            if not out.is_contiguous():
                return self._carefully(x, out)
        start(x, out)
        return out

    def _carefully(self, x: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
        """A first call, and whatever is not the same at every call."""
        if out is None:
            out = torch.empty_like(x, memory_format=torch.contiguous_format)
        elif out is not x:
            _fits(x, out)
        if self._check or x.requires_grad:
            self._look_twice(x)
        capturing = x.is_cuda and torch.cuda.is_current_stream_capturing()
        key = (x.numel(), x.dtype, x.device, capturing, self._registers)
        known = self._chosen.get(key)
        reducer, plan = known or self._choose(key, x, capturing)
        if not (x.is_contiguous() and out.is_contiguous()):
            _through_copies(reducer, x, out, plan)
            return out
        reducer.all_reduce(x, out, plan)
        if known:
            self._shorten(x, reducer, plan)
        return out

    def _shorten(self, x: torch.Tensor, reducer: Reducer, plan: Plan) -> None:
        """Keep the short way for tensors like ``x``, if one plan sums them in captures and outside."""
        if self._check or not self._line(x.device).always(self._request(x, False), plan):
            return
        if len(self._steps) >= _MOST_PLANS:
            self._steps.clear()
        start = reducer.starter(plan, x.dtype, x.numel())
        allocate, here = quick.allocation(x.device)
        self._steps[x.shape, x.dtype, x.device] = Step(
            start, allocate, here, tuple(x.shape), x.stride(), x.dtype
        )

    def plan(self, x: torch.Tensor) -> Plan:
        """What would be used for ``x`` now and why; sends nothing, unless it is the device's first."""
        capturing = x.is_cuda and torch.cuda.is_current_stream_capturing()
        return self._line(x.device).plan(self._request(x, capturing))

    @contextmanager
    def capture(self) -> Iterator[AllReduce]:
        """Hold this around CUDA graph captures, so that their inputs may be read in place.

        When the block ends, all ranks exchange the addresses; every rank comes here at the same
        point, outside a capture.
        """
        self._registers = self._wishes.graph_inputs
        try:
            yield self
        finally:
            self._registers = False
        for line in self._lines.values():
            line.end_capture()

    @property
    def workspace_bytes(self) -> int:
        """Memory held until ``close()``; a shared segment of CPU ranks is counted whole."""
        return sum(line.workspace_bytes for line in self._lines.values())

    def close(self) -> None:
        """Free every workspace and let go of the group. Local: waits for no peer. Safe twice."""
        self._closed, self._check = True, False
        self._chosen.clear()
        self._steps.clear()
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        # A group that is still referred to when the interpreter ends is torn down then, and its threads
        # abort the process where they give up a tensor without an interpreter.
        for name in ("_group", "_exchange"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> AllReduce:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _choose(
        self, key: tuple[object, ...], x: torch.Tensor, capturing: bool
    ) -> tuple[Reducer, Plan]:
        line = self._line(x.device)
        plan = line.plan(self._request(x, capturing))
        if len(self._chosen) >= _MOST_PLANS:
            self._chosen.clear()
        reducer = self._nothing if plan.backend == "none" else line.reducer(plan)
        self._chosen[key] = reducer, plan
        if plan.order == "library" and not self._told_order:
            self._told_order = True
            self._say_order(plan)
        return reducer, plan

    def _say_order(self, plan: Plan) -> None:
        if self._exchange.rank == 0:
            text = "%s sums in its own order: no order was asked for (order=, --deterministic)"
            logger("collectives").info(text, plan.backend)

    def _request(self, x: torch.Tensor, capturing: bool) -> Request:
        return Request(
            nbytes=x.numel() * x.element_size(),
            dtype=str(x.dtype).removeprefix("torch."),
            order=self._wishes.order,
            order_asked=self._wishes.order_asked,
            contiguous=x.is_contiguous(),
            capturing=capturing,
            registers=self._registers,
        )

    def _line(self, device: torch.device) -> Line:
        if self._closed:
            raise UsageError("this AllReduce is closed.", do="make a new one")
        line = self._lines.get(device)
        if line is None:
            library = self._libraries.get(device.type, "")
            line = Line(self._group, self._exchange, device, library, self._wishes)
            self._lines[device] = line
            self._announce(line)
        return line

    def _announce(self, line: Line) -> None:
        """Say the guard's decision, once a process and on rank 0 only."""
        decision = line.decision
        if decision is not None and dist.get_rank() == 0 and decision.rule not in _announced:
            _announced.add(decision.rule)
            level = {"debug": 10, "info": 20, "warning": 30}[decision.level]
            logger("collectives").log(level, "%s", decision)

    def _device(self, device: torch.device | str | int | None) -> torch.device:
        if device is not None:
            found = (
                torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
            )
        else:
            found = torch.device("cuda" if self._libraries.get("cuda") == "nccl" else "cpu")
        if str(found) == "cuda":
            return torch.device("cuda", torch.cuda.current_device())
        return found

    def _look_twice(self, x: torch.Tensor) -> None:
        """What is looked at in checked mode, or where a gradient would be lost."""
        if x.requires_grad and torch.is_grad_enabled():
            raise UsageError(
                "an all-reduce passes no gradient on.",
                seen="a tensor that requires a gradient, with gradients enabled",
                do="call it in torch.no_grad(), on x.detach(), or inside an autograd.Function",
            )
        if self._check and not (x.is_cuda and torch.cuda.is_current_stream_capturing()):
            self._compare_calls([x.numel(), str(x.dtype), x.device.type])

    def _compare_calls(self, mine: list[object]) -> None:
        answers = self._exchange.gather_json(mine)
        for rank, answer in zip(self._exchange.ranks, answers, strict=True):
            if answer != answers[0]:
                raise PeerError(
                    f"rank {rank} is in another all-reduce than rank {self._exchange.ranks[0]}.",
                    seen=f"rank {rank} sums {answer}, the first rank {answers[0]}",
                    expected="the same elements, dtype and device on every rank",
                    do="look at which of the two calls one all-reduce more or less",
                )


def _fits(x: torch.Tensor, out: torch.Tensor) -> None:
    if out.shape != x.shape or out.dtype != x.dtype or out.device != x.device:
        raise UsageError(
            "out does not fit x.",
            seen=f"x {list(x.shape)} {x.dtype} {x.device}, out {list(out.shape)} {out.dtype} {out.device}",
            expected="the same shape, dtype and device",
        )


def _through_copies(reducer: Reducer, x: torch.Tensor, out: torch.Tensor, plan: Plan) -> None:
    """For tensors that are not contiguous: the sum goes through contiguous ones."""
    source = x.contiguous()
    if out.is_contiguous():
        reducer.all_reduce(source, out, plan)
        return
    target = torch.empty_like(source)
    reducer.all_reduce(source, target, plan)
    out.copy_(target)
