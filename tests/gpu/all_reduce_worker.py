"""One rank of the all-reduce scenarios: ``torchrun ... all_reduce_worker.py SCENARIO...``.

Each scenario is a function that raises where something is wrong on this rank. Rank 0 prints a line
for each: ``ok NAME`` or ``failed NAME`` with the first rank's trouble.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from twinrun.collectives import probe, tuning
from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.exchange import Exchange
from twinrun.errors import PeerError

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
SIZES = (1, 2, 7, 8, 9, 63, 512, 1000, 4099, 65536, 131077, 1 << 20, (5 << 20) + 3)


def part(rank: int, count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """What ``rank`` brings to call ``seed``: wide-range numbers, for odd seeds with special ones."""
    generator = torch.Generator("cuda").manual_seed(seed * 64 + rank)
    x = torch.randn(count, generator=generator, device="cuda")
    scale = torch.randint(-12, 12, (count,), generator=generator, device="cuda")
    x = torch.ldexp(x, scale).to(dtype)
    if seed % 2:
        kind = torch.randint(0, 400, (count,), generator=generator, device="cuda")
        x[kind == 0], x[kind == 1], x[kind == 2] = -0.0, float("inf"), float("nan")
        x.view(torch.int32 if dtype == torch.float32 else torch.int16)[kind == 3] = -1
        x[: count // 2] = torch.where(kind[: count // 2] > 3, -0.0, x[: count // 2])
    return x


def expected(parts: list[torch.Tensor], order: str) -> torch.Tensor:
    """The sum in the stated order, by torch's own operations."""
    if order == "ranks":
        total = parts[0].float()
        for more in parts[1:]:
            total = total + more.float()
        return total.to(parts[0].dtype)
    level = parts
    while len(level) > 1:
        even = len(level) // 2 * 2
        sums = [(level[i].float() + level[i + 1].float()) for i in range(0, even, 2)]
        level = [s.to(parts[0].dtype) for s in sums] + level[even:]
    return level[0]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bits, every NaN counting as one and the same."""
    integers = torch.int32 if a.dtype == torch.float32 else torch.int16
    both_nan = torch.isnan(a) & torch.isnan(b)
    return bool(((a.view(integers) == b.view(integers)) | both_nan).all())


def parts_of(count: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    return [part(rank, count, dtype, seed) for rank in range(dist.get_world_size())]


def sums(backend: str) -> None:
    """Every dtype, order and odd size; in place, out of place and unaligned: the stated sum."""
    rank, seed = dist.get_rank(), 0
    for order in ("ranks", "tree"):
        with AllReduce(backend=backend, order=order) as ar:
            for dtype in DTYPES:
                for count in SIZES:
                    seed += 1
                    parts = parts_of(count, dtype, seed)
                    wanted = expected(parts, order)
                    room = torch.full((count + 8,), 7.0, dtype=dtype, device="cuda")
                    # Unaligned on one rank only: the choice must not rest on it.
                    shift = 1 if seed % 3 == 0 and rank == 0 else 0
                    x = room[shift : shift + count]
                    x.copy_(parts[rank])
                    y = ar(x, out=x) if seed % 4 == 0 else ar(x)
                    plan = ar.plan(x)
                    assert plan.backend == backend and plan.order == order, plan
                    assert same_bits(y, wanted), (order, dtype, count, plan, seed)
                    assert bool((room[shift + count :] == 7.0).all()), "wrote past its end"


def symmetric_sums() -> None:
    sums("symmetric")


def ipc_sums() -> None:
    sums("ipc")


def short_way() -> None:
    """From its third call on a shape goes the short way: every kind of tensor, stream and device."""
    rank, elsewhere = dist.get_rank(), (dist.get_rank() + 1) % torch.cuda.device_count()
    stream = torch.cuda.Stream()
    with AllReduce(backend="symmetric") as ar:
        for seed, (dtype, count) in enumerate((d, n) for d in DTYPES for n in (8, 1000, 4099)):
            parts = parts_of(count, dtype, seed)
            wanted = expected(parts, "ranks")
            room = torch.full((2 * count + 2,), 7.0, dtype=dtype, device="cuda")
            shifted, wide = room[rank == 0 :][:count], room[2:].view(count, 2)[:, 0]
            x = parts[rank]
            for number in range(12):
                y = x
                if number % 4 == 1:
                    y = shifted.copy_(x)
                elif number % 4 == 2:
                    y = wide.copy_(x)
                if number % 3 == 1:
                    with torch.cuda.device(elsewhere):
                        total = ar(y)
                elif number % 3 == 2:
                    stream.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(stream):
                        total = ar(y)
                    torch.cuda.current_stream().wait_stream(stream)
                else:
                    total = ar(y, out=torch.empty_like(x))
                assert total.device == x.device and total.is_contiguous()
                assert same_bits(total, wanted), (dtype, count, number)
                torch.cuda.synchronize()
            assert (x.shape, x.dtype, x.device) in ar._steps
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                total = ar(x)
            graph.replay()
            assert same_bits(total, wanted), (dtype, count, "captured")


def alike_across_algorithms() -> None:
    """Cutting a tensor or crossing a threshold never changes a bit."""
    parts = parts_of(3 << 20, torch.bfloat16, 4)
    mine = parts[dist.get_rank()]
    with AllReduce(backend="symmetric") as one, AllReduce(backend="ipc") as other:
        whole = one(mine)
        pieces = torch.cat([one(piece.clone()) for piece in mine.split(10_000)])
        assert torch.equal(whole, pieces)
        assert torch.equal(whole, other(mine))


def tree_of_two_and_four() -> None:
    """Four partial sums on four ranks, and their pairs summed first on two: the same bits."""
    if dist.get_world_size() != 4:
        return
    parts = parts_of(50_001, torch.bfloat16, 6)
    with AllReduce(order="tree", backend="symmetric") as four:
        whole = four(parts[dist.get_rank()])
    pair = [(parts[i].float() + parts[i + 1].float()).bfloat16() for i in (0, 2)]
    group = [dist.new_group([0, 1]), dist.new_group([2, 3])][dist.get_rank() // 2]
    with AllReduce(group, order="tree", backend="symmetric") as two:
        assert torch.equal(whole, two(pair[dist.get_rank() % 2]))


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


def two_streams() -> None:
    """Two objects on two streams, enqueued in another order on every rank, do not keep each other out."""
    rank = dist.get_rank()
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    objects = [AllReduce(backend="symmetric"), AllReduce(backend="symmetric")]
    sizes = (512, 1 << 19, 1 << 21, 1 << 22)
    inputs = [[torch.randn(n, device="cuda").bfloat16() for n in sizes] for _ in objects]
    # Allocating while a kernel waits for a peer could wait for that kernel.
    outputs = [[torch.empty_like(x) for x in xs] for xs in inputs]
    torch.cuda.synchronize()
    for turn in range(40):
        for which in (0, 1) if (turn + rank) % 2 else (1, 0):
            with torch.cuda.stream(streams[which]):
                if turn % 7 == rank:
                    torch.cuda._sleep(3_000_000)
                x = inputs[which][turn % len(sizes)]
                objects[which](x, out=outputs[which][turn % len(sizes)])
    torch.cuda.synchronize()
    for which, ar in enumerate(objects):
        for x, y in zip(inputs[which], outputs[which], strict=True):
            assert torch.equal(y, ar(x))
        ar.close()


def far_apart() -> None:
    """Ranks that arrive seconds apart get the same sum."""
    parts = parts_of(1000, torch.float32, 8)
    with AllReduce(backend="symmetric") as ar:
        ar(parts[0])
        time.sleep(1.5 * dist.get_rank())
        assert same_bits(ar(parts[dist.get_rank()]), expected(parts, "ranks"))


def closed_in_any_order() -> None:
    """A rank may close at once while others still run their last call."""
    for backend in ("symmetric", "ipc"):
        ar = AllReduce(backend=backend)
        for _ in range(20):
            ar(torch.ones(1 << 18, device="cuda"))
        time.sleep(0.2 * dist.get_rank())
        ar.close()
        ar.close()


def leaks(rounds: int = 40) -> None:
    """Rounds of create, capture, replay and close leave device and host memory where they were."""
    x = torch.randn(50_000, device="cuda").bfloat16()
    device, host = [], []
    for round_ in range(rounds):
        with AllReduce(backend="symmetric") as ar:
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
            device.append(torch.cuda.mem_get_info()[0])
            host.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    gone, grown = device[0] - device[-1], host[-1] - host[0]
    told = f"{rounds} rounds: device {gone >> 10} KiB gone, host {grown >> 10} KiB grown"
    if dist.get_rank() == 0:
        print(told, flush=True)
    assert gone < 4 << 20 and grown < 64 << 20, told


def leaks_long() -> None:
    """The same a thousand times."""
    leaks(1000)


def leaks_without_tested_copy() -> None:
    """The same a thousand times with the tested copy between GPUs left out."""
    tested, probe.peer_access = probe.peer_access, lambda exchange, device: None
    try:
        leaks(1000)
    finally:
        probe.peer_access = tested


def other_pools() -> None:
    """A pool's tensors are summed; captured in place they work or are declined with the reason."""
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        x = torch.ones(1 << 20, device="cuda")
    with AllReduce(backend="symmetric") as ar:
        assert bool((ar(x) == dist.get_world_size()).all())


def never_arrives() -> None:
    """In checked mode the rank that never arrives is named, with the size; the others go on."""
    ar = AllReduce(backend="symmetric")
    ar(torch.ones(1000, device="cuda"))
    told = ""
    if dist.get_rank() != 1:
        reducer, plan = next(iter(ar._chosen.values()))
        try:
            x = torch.ones(1000, device="cuda")
            reducer.all_reduce(x, torch.empty_like(x), plan)
        except PeerError as error:
            told = str(error)
        assert "rank 1 did not arrive at an all-reduce of 4000 bytes" in told, told
    ar.close()


def graph_inputs_unreachable() -> None:
    """With expandable segments nothing is read in place, the plan knows, and sums are right."""
    with pulling():
        with AllReduce(backend="symmetric") as ar, ar.capture():
            x = torch.ones(1 << 20, device="cuda")
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                plan = ar.plan(x)
        assert plan.algorithm != "two_shot_pull", plan
        graphs()


def main() -> int:
    dist.init_process_group("cpu:gloo,cuda:nccl")
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    exchange, failed = Exchange(dist.group.WORLD, timeout_s=120), 0
    for name in sys.argv[1:]:
        began, trouble = time.monotonic(), None
        try:
            globals()[name]()
            torch.cuda.synchronize()
        except Exception:
            trouble = traceback.format_exc(limit=-4)
        told = exchange.first_trouble(trouble)
        failed += told is not None
        if dist.get_rank() == 0:
            took = f"{time.monotonic() - began:.1f} s"
            print(f"ok {name} {took}" if told is None else f"failed {name}: {told}", flush=True)
    dist.destroy_process_group()
    return failed


if __name__ == "__main__":
    sys.exit(main())
