"""What an eager all-reduce costs in Python, call to call, and what its parts cost.

    torchrun --standalone --nproc-per-node 2 benchmarks/eager_all_reduce.py --out eager_2.json

Nothing is waited for while the host is timed. A figure is a round of 400 calls, which the GPU's
queue holds without making the host wait; of 15 rounds the least, the median and the most are told,
of each round the slowest rank. Beside ``ar(x)``: the launch alone, of an empty kernel by this
project's ``Launch`` with and without programmatic dependent launch, by NVIDIA's cuda-bindings and by
cuda-core; the output's allocation; NCCL.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from ctypes import Structure, c_uint64
from pathlib import Path

import torch
import torch.distributed as dist

from twinrun.collectives import quick
from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.exchange import Exchange
from twinrun.kernels.compiler import compile_source
from twinrun.kernels.driver import Function, Launch, driver, take
from twinrun.kernels.source import Source

CALLS, ROUNDS = 400, 15
EMPTY = 'extern "C" __global__ void empty(unsigned long long unused) {}'


class _One(Structure):
    """The empty kernel's argument."""

    _fields_ = (("unused", c_uint64),)


def by_bindings(function: Function, stream: int) -> Callable[[], object]:
    """A launch through cuda-bindings' own wrapper."""
    cuda = driver()
    arguments = ((0,), (c_uint64,))
    return lambda: take(
        cuda.cuLaunchKernel(function.handle, 1, 1, 1, 32, 1, 1, 0, stream, arguments, 0)
    )


def by_core(cubin: bytes, device: torch.device) -> Callable[[], object]:
    """A launch through cuda-core."""
    from cuda.core import Device, LaunchConfig, ObjectCode, launch

    there = Device(device.index)
    there.set_current()
    stream = there.create_stream()
    kernel = ObjectCode.from_cubin(cubin).get_kernel("empty")
    config = LaunchConfig(grid=1, block=32)
    return lambda: launch(stream, config, kernel, 0)


def contenders(ar: AllReduce, device: torch.device) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    x = torch.randn(512, device=device).bfloat16()
    y, z = torch.empty_like(x), torch.empty_like(x)
    for _ in range(3):
        ar(x), ar(x, out=y), dist.all_reduce(z)
    major, minor = torch.cuda.get_device_capability()
    cubin = compile_source(Source("empty", EMPTY, ()), f"sm_{major}{minor}", ())
    function = Function(cubin, "empty")
    stream = torch.cuda.current_stream().cuda_stream
    plain, dependent = (Launch(function, _One(), 1, 32, early) for early in (False, True))
    side = torch.cuda.Stream()
    aside = side.cuda_stream
    find = quick.current_stream()
    start, allocate, _, shape, strides, dtype = ar._steps[x.shape, x.dtype, x.device]
    on_side = _on(side)
    found = {
        "ar(x)": lambda: ar(x),
        "ar(x, out=y)": lambda: ar(x, out=y),
        "its start alone": lambda: start(x, y),
        "empty kernel, Launch": lambda: plain(stream),
        "empty kernel, Launch, dependent": lambda: dependent(stream),
        "the same, on a side stream": lambda: dependent(aside),
        "empty kernel, cuda-bindings": by_bindings(function, stream),
        "its output alone": lambda: allocate(shape, strides, dtype),
        "torch.empty_like(x)": lambda: torch.empty_like(x),
        "current stream": lambda: find(device.index),
        "dist.all_reduce(z)": lambda: dist.all_reduce(z),
        "ar(x) on a side stream": lambda: on_side(ar, x),
    }
    try:
        found["empty kernel, cuda-core, on its own stream"] = by_core(cubin, device)
    except (ImportError, AttributeError, TypeError) as error:
        print(f"cuda-core is not as expected: {error}", flush=True)
    return found


def _on(stream: torch.cuda.Stream) -> Callable[[AllReduce, torch.Tensor], None]:
    """Makes ``stream`` the current one at the first call; it stays so."""
    made = []

    def call(ar: AllReduce, x: torch.Tensor) -> None:
        if not made:
            torch.cuda.set_stream(stream)
            made.append(stream)
        ar(x)

    return call


def rounds(call: Callable[[], object], exchange: Exchange) -> list[float]:
    """Microseconds a call, the slowest rank's, of every round, in rising order."""
    spent = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        exchange.barrier()
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        spent.append((time.perf_counter() - began) / CALLS * 1e6)
    torch.cuda.synchronize()
    return sorted(max(each) for each in zip(*exchange.gather_json(spent), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl")
    exchange, rows = Exchange(dist.group.WORLD), []
    with AllReduce(device=device) as ar:
        for name, call in contenders(ar, device).items():
            us = rounds(call, exchange)
            row = {"least": us[0], "median": us[len(us) // 2], "most": us[-1]}
            rows.append({"what": name} | {key: round(value, 2) for key, value in row.items()})
            if exchange.rank == 0:
                told = "  ".join(f"{value:6.2f}" for value in row.values())
                print(f"{name:44} {told}  us (least, median, most)", flush=True)
    if exchange.rank == 0 and asked.out:
        size = exchange.size
        told = {
            "gpus": size, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
            "command": f"torchrun --standalone --nproc-per-node {size} benchmarks/eager_all_reduce.py",
            "date": time.strftime("%Y-%m-%d"), "bytes": 1024, "rows": rows,
        }  # fmt: skip
        asked.out.write_text(json.dumps(told, indent=1) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
