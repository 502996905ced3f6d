"""Scenarios of the all-reduce worker: captured graphs, what they read in place, and memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from all_reduce_parts import expected, parts_of, same_bits

from twinrun.collectives import tuning
from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.exchange import Exchange


@contextmanager
def pulling() -> Iterator[None]:
    """Makes every captured call read its input in place, whatever the table says."""
    found = tuning.find

    def with_pull(backend: str, gpu: str, world: int) -> tuning.Table | None:
        table = found(backend, gpu, world)
        return table and replace(table, pull=tuning.Row(1, "two_shot_pull", 64, 256))

    tuning.find = with_pull
    try:
        yield
    finally:
        tuning.find = found


def forced_pull() -> None:
    """Graph inputs are read in place, and replays see new numbers."""
    with pulling():
        graphs()


def graphs() -> None:
    """Captured calls replay right, in and out of place, warmed up outside the capture."""
    rank = dist.get_rank()
    with AllReduce(backend="symmetric") as ar:
        held = torch.empty(300_003, dtype=torch.bfloat16, device="cuda")
        small = torch.empty(100, dtype=torch.bfloat16, device="cuda")
        for round_ in range(3):
            graph = torch.cuda.CUDAGraph()
            ar(held.clone())
            with ar.capture(), torch.cuda.graph(graph):
                first = ar(held)
                ar(small, out=small)
                second = ar(first * 2)
            for replay in range(5):
                seed = round_ * 10 + replay * 2
                parts = parts_of(held.numel(), torch.bfloat16, seed)
                smalls = parts_of(100, torch.bfloat16, seed + 50)
                held.copy_(parts[rank])
                small.copy_(smalls[rank])
                graph.replay()
                once = expected(parts, "ranks")
                twice = expected([once * 2] * dist.get_world_size(), "ranks")
                assert same_bits(first, once), (round_, replay)
                assert same_bits(small, expected(smalls, "ranks")), (round_, replay)
                assert same_bits(second, twice), (round_, replay)


def rows_are_used_again() -> None:
    """Capturing the same tensors over and over takes no further rows, and opens nothing twice."""
    with pulling(), AllReduce(backend="symmetric") as ar:
        x = torch.randn(100_000, device="cuda").bfloat16()
        y = torch.empty_like(x)
        for _ in range(20):
            graph = torch.cuda.CUDAGraph()
            with ar.capture(), torch.cuda.graph(graph):
                ar(x, out=y)
                ar(x, out=x)
        rows = next(iter(ar._lines.values()))._reducers["symmetric"]._rows
        assert rows is not None and rows.rows == 2, rows and rows.rows


def leaks(rounds: int = 40, backend: str = "symmetric") -> None:
    """Rounds of create, capture, replay and close leave device and host memory where they were."""
    x = torch.randn(50_000, device="cuda").bfloat16()
    device, host, exchange = [], [], Exchange(dist.group.WORLD)
    for round_ in range(rounds):
        with AllReduce(backend=backend, device=x.device) as ar:
            ar(x)
            graph = torch.cuda.CUDAGraph()
            with ar.capture(), torch.cuda.graph(graph):
                y = ar(x)
            graph.replay()
            torch.cuda.synchronize()
            del graph, y
        if round_ in (rounds // 5, rounds - 1):
            gc.collect()
            torch.cuda.empty_cache()
            exchange.barrier()  # another rank may have its workspace on this very GPU
            device.append(torch.cuda.mem_get_info()[0])
            exchange.barrier()
            host.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    gone, grown = device[0] - device[-1], host[-1] - host[0]
    told = f"{rounds} rounds: device {gone >> 10} KiB gone, host {grown >> 10} KiB grown"
    if dist.get_rank() == 0:
        print(told, flush=True)
    assert gone < 4 << 20 and grown < 64 << 20, told


def leaks_long() -> None:
    """The same a thousand times."""
    leaks(1000)


def leaks_ipc() -> None:
    """Two hundred times through IPC handles, which more ranks than GPUs can have too."""
    leaks(200, "ipc")


def other_pools() -> None:
    """A pool's tensors are summed; captured in place they work or are declined with the reason."""
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        x = torch.ones(1 << 20, device="cuda")
    with AllReduce(backend="symmetric") as ar:
        assert bool((ar(x) == dist.get_world_size()).all())


def graph_inputs_unreachable() -> None:
    """With expandable segments nothing is read in place, the plan knows, and sums are right."""
    with pulling():
        with AllReduce(backend="symmetric") as ar, ar.capture():
            x = torch.ones(1 << 20, device="cuda")
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                plan = ar.plan(x)
        assert plan.algorithm != "two_shot_pull", plan
        graphs()
