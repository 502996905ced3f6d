"""Millions of all-reduces of random sizes, dtypes, orders and algorithms, every sum checked.

    torchrun --standalone --nproc-per-node 4 benchmarks/stress_all_reduce.py --operations 10000000

Two AllReduce objects run on two streams. Each has a CUDA graph of random operations; an operation
is three kernels: write inputs that depend on the operation, the replay and the rank (and now and
then wait up to 16 us, on some ranks), all-reduce them, and compare every element of the sum with
the stated order worked out from all ranks' inputs on the device. Nothing is sampled.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import time
from pathlib import Path

import torch
import torch.distributed as dist

from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import Plan
from twinrun.kernels import source
from twinrun.kernels.compiler import compile_source
from twinrun.kernels.driver import Function, Launch
from twinrun.kernels.variant import DTYPES, ORDERS, Variant

MOST_BYTES = 1 << 20
DELAY_NS = 0x3FFF


class Stress(ctypes.Structure):
    """As in stress.cu."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("input", "output", "round", "wrong")),
        *((name, ctypes.c_uint32) for name in ("elements", "seed", "rank", "delay")),
    )


class Kernels:
    """fill, check and count for each dtype and order."""

    def __init__(self, world: int) -> None:
        self._world = world
        self._functions: dict[tuple[str, str, str], Function] = {}
        text = Path(__file__).with_name("stress.cu").read_text()
        headers: dict[str, str] = {}
        source._collect(text, headers)
        self._source = source.Source("stress", text, tuple(headers.items()))
        major, minor = torch.cuda.get_device_capability()
        for dtype in DTYPES:
            for order in ORDERS:
                defines = Variant("stress", world, dtype, order).defines
                binary = compile_source(self._source, f"sm_{major}{minor}", defines)
                for name in ("fill", "check", "count"):
                    self._functions[name, dtype, order] = Function(binary, name)

    def start(self, name: str, dtype: str, order: str, told: Stress, stream: int) -> None:
        blocks = max(1, min(64, told.elements // 1024))
        shape = (1, 1) if name == "count" else (blocks, 256)
        Launch(self._functions[name, dtype, order], told, *shape, dependent=False)(stream)


class Lane:
    """One stream with its AllReduce, its buffers and its graph of ``length`` operations."""

    def __init__(self, number: int, kernels: Kernels, length: int, choices: random.Random) -> None:
        self.stream = torch.cuda.Stream()
        self.ar = AllReduce(backend="symmetric")
        self.kernels, self.length, self.number = kernels, length, number
        self.input = torch.zeros(MOST_BYTES + 64, dtype=torch.uint8, device="cuda")
        self.output = torch.zeros_like(self.input)
        self.round = torch.zeros(1, dtype=torch.int32, device="cuda")
        self.wrong = torch.zeros(1, dtype=torch.int64, device="cuda")
        self.operations = [self._choose(choices) for _ in range(length)]
        self.graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()

    def _choose(self, choices: random.Random) -> tuple[str, str, str, int, int, int, int]:
        dtype, order = choices.choice(DTYPES), choices.choice(ORDERS)
        width = 4 if dtype == "float32" else 2
        most = MOST_BYTES if choices.random() < 0.02 else 32 << 10
        count = max(1, int(2 ** choices.uniform(0, (most // width).bit_length() - 1)))
        algorithm = choices.choice(("one_shot_push", "two_shot_push", "two_shot_pull"))
        blocks, threads = choices.choice((1, 2, 8, 33, 64)), choices.choice((64, 128, 256))
        return dtype, order, algorithm, count, blocks, threads, choices.choice((0, 0, 0, width))

    def capture(self) -> None:
        with self.ar.capture(), torch.cuda.stream(self.stream):
            self.graph.capture_begin()
            for seed, operation in enumerate(self.operations):
                self._operation(seed, *operation)
            told = self._told(0, 1, 0, 0)
            self.kernels.start("count", "float32", "ranks", told, self.stream.cuda_stream)
            self.graph.capture_end()

    def _operation(
        self, seed: int, dtype: str, order: str, algorithm: str, count: int,
        blocks: int, threads: int, shift: int,
    ) -> None:  # fmt: skip
        width = 4 if dtype == "float32" else 2
        kind = getattr(torch, dtype)
        x = self.input[shift : shift + count * width].view(kind)
        y = self.output[: count * width].view(kind)
        told = self._told(seed + 100_003 * self.number, count, x.data_ptr(), y.data_ptr())
        handle = self.stream.cuda_stream
        self.kernels.start("fill", dtype, order, told, handle)
        reducer = next(iter(self.ar._lines.values()))._reducers["symmetric"]
        reducer.all_reduce(x, y, Plan("symmetric", algorithm, order, "", (), blocks, threads))
        self.kernels.start("check", dtype, order, told, handle)

    def _told(self, seed: int, count: int, x: int, y: int) -> Stress:
        return Stress(
            x, y, self.round.data_ptr(), self.wrong.data_ptr(), count, seed,
            dist.get_rank(), DELAY_NS,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=300.0, help="stop after this long")
    parser.add_argument("--length", type=int, default=500, help="operations in a graph")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    dist.init_process_group("cpu:gloo,cuda:nccl")
    torch.cuda.set_device(dist.get_rank())
    exchange = Exchange(dist.group.WORLD)
    kernels, choices = Kernels(exchange.size), random.Random(1)
    lanes = [Lane(number, kernels, asked.length, choices) for number in range(2)]
    for lane in lanes:
        lane.capture()
    done, began, wrong = 0, time.monotonic(), 0
    while done < asked.operations and not wrong:
        for _ in range(40):
            # Another order on every rank: nothing may rest on which stream comes first.
            for lane in lanes if exchange.rank % 2 else lanes[::-1]:
                with torch.cuda.stream(lane.stream):
                    lane.graph.replay()
            done += 2 * asked.length
        torch.cuda.synchronize()
        wrong = sum(exchange.gather_json(sum(int(lane.wrong) for lane in lanes)))
        if max(exchange.gather_json(time.monotonic() - began)) > asked.seconds:
            break
    spent = time.monotonic() - began
    if exchange.rank == 0:
        told = {
            "gpus": exchange.size, "gpu": torch.cuda.get_device_name(), "operations": done,
            "elements_wrong": wrong, "seconds": round(spent, 1),
            "command": f"torchrun --nproc-per-node {exchange.size} benchmarks/stress_all_reduce.py",
        }  # fmt: skip
        print(json.dumps(told), flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(told, indent=1) + "\n")
    for lane in lanes:
        lane.graph.reset()
        lane.ar.close()
    dist.destroy_process_group()
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
