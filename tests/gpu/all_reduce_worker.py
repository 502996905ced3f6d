"""One rank of the all-reduce scenarios: ``torchrun ... all_reduce_worker.py SCENARIO...``.

Each scenario is a function that raises where something is wrong on this rank. Rank 0 prints a line
for each: ``ok NAME`` or ``failed NAME`` with the first rank's trouble.
"""

from __future__ import annotations

import sys
import time
import traceback

import all_reduce_memory
import torch
import torch.distributed as dist
from all_reduce_parts import DTYPES, expected, parts_of, same_bits

from twinrun.collectives import ipc
from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import Plan
from twinrun.collectives.kernel_reducer import KernelReducer
from twinrun.errors import PeerError
from twinrun.kernels.arguments import EMPTY_BYTE

SIZES = (1, 2, 7, 8, 9, 63, 512, 1000, 4099, 65536, 131077, 1 << 20, (5 << 20) + 3)


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


def pushed_through_plain_memory() -> None:
    """The push kernels' sums, over memory mapped by IPC handles: also for more ranks than GPUs.

    Ranks that share a GPU take turns on it, so a kernel that waits for one of them waits long.
    """
    exchange, rank, seed = Exchange(dist.group.WORLD), dist.get_rank(), 0
    device = torch.device("cuda", torch.cuda.current_device())
    workspace = ipc.shared_workspace(exchange, device, 1 << 20, EMPTY_BYTE)
    reducer = KernelReducer(exchange, device, workspace, ("one_shot_push", "two_shot_push"))
    for algorithm in ("one_shot_push", "two_shot_push"):
        for order in ("ranks", "tree"):
            for dtype in DTYPES:
                for count, blocks in (
                    (1, 1),
                    (9, 1),
                    (1000, 3),
                    (4099, 8),
                    (65536, 64),
                    (262147, 8),
                ):
                    seed += 1
                    parts = parts_of(count, dtype, seed)
                    x, y = parts[rank], torch.empty_like(parts[rank])
                    plan = Plan("symmetric", algorithm, order, "", (), blocks, 128)
                    reducer.all_reduce(x, y, plan)
                    assert same_bits(y, expected(parts, order)), (algorithm, order, dtype, count)
    torch.cuda.synchronize()
    exchange.barrier()
    reducer.close()


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


def main() -> int:
    dist.init_process_group("cpu:gloo,cuda:nccl")
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    exchange, failed = Exchange(dist.group.WORLD, timeout_s=120), 0
    for name in sys.argv[1:]:
        began, trouble = time.monotonic(), None
        try:
            getattr(all_reduce_memory, name, globals().get(name))()
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
