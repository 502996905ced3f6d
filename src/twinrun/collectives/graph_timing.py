"""Microseconds of one all-reduce inside a CUDA graph, on every rank alike.

A graph of many operations over rotating buffer pairs; a barrier between the GPUs, on the GPU,
right before the start event; the maximum over the ranks; the median of several replays.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

PAIRS = 4
REPLAYS = 9
_AHEAD_CYCLES = 400_000  # the GPU waits this long, while the host enqueues what follows

Call = Callable[[torch.Tensor, torch.Tensor], object]
Pair = tuple[torch.Tensor, torch.Tensor]


def operations(nbytes: int) -> int:
    """How many operations a graph holds at this size."""
    return 100 if nbytes <= 1 << 20 else 40 if nbytes <= 8 << 20 else 20


def capture(call: Call, pairs: Sequence[Pair], count: int, warm: int = 2) -> torch.cuda.CUDAGraph:
    """A graph of ``count`` calls over ``pairs`` in turn, after ``warm`` calls outside it."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for number in range(warm):
            call(*pairs[number % len(pairs)])
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    # torch.cuda.graph() collects garbage and empties the cache at every capture; a sweep makes
    # hundreds.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        graph.capture_begin()
        for number in range(count):
            call(*pairs[number % len(pairs)])
        graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph


def replay_us(
    graph: torch.cuda.CUDAGraph,
    count: int,
    gpu_barrier: Callable[[], object],
    cpu_group: dist.ProcessGroup,
    replays: int = REPLAYS,
) -> float:
    """Median over ``replays`` of the slowest rank's time per operation, in microseconds."""
    graph.replay()
    torch.cuda.synchronize()
    spent = torch.empty(replays, dtype=torch.float64)
    for number in range(replays):
        begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        torch.cuda._sleep(_AHEAD_CYCLES)  # type: ignore[no-untyped-call]
        gpu_barrier()
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        spent[number] = begin.elapsed_time(end) * 1e3 / count
    dist.all_reduce(spent, op=dist.ReduceOp.MAX, group=cpu_group)
    times: list[float] = spent.tolist()
    return statistics.median(times)
