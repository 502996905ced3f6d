"""Why ``nccl`` in the all-reduce tables is slower than NCCL: the same graphs, through torch and without.

    torchrun --standalone --nproc-per-node 2 benchmarks/nccl_in_graphs.py

``dist.all_reduce`` as it comes and as an asynchronous operation, and ``ncclAllReduce`` called as it
is on a communicator of its own, in place and out of place. NCCL's own variables
(``NCCL_GRAPH_REGISTER``, ``NCCL_GRAPH_MIXING_SUPPORT``) are set from outside.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
from pathlib import Path

import torch
import torch.distributed as dist

from twinrun.collectives import graph_timing
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.symmetric_memory import SymmetricAllocation

SIZES = (1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 24)
BFLOAT16, SUM = 9, 0


class _Id(ctypes.Structure):
    """``ncclUniqueId``."""

    _fields_ = (("internal", ctypes.c_char * 128),)


class Raw:
    """A communicator made and used through libnccl itself."""

    def __init__(self, exchange: Exchange) -> None:
        self._nccl = ctypes.CDLL("libnccl.so.2")
        unique = _Id()
        if exchange.rank == 0:
            self._take(self._nccl.ncclGetUniqueId(ctypes.byref(unique)))
        first = bytes.fromhex(exchange.gather_json(bytes(unique).hex())[0])
        unique = _Id.from_buffer_copy(first)
        self._comm = ctypes.c_void_p()
        self._take(
            self._nccl.ncclCommInitRank(
                ctypes.byref(self._comm), exchange.size, unique, exchange.rank
            )
        )

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Sum ``x`` over the ranks into ``y`` on the current stream."""
        stream = torch.cuda.current_stream().cuda_stream
        self._take(
            self._nccl.ncclAllReduce(
                ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()),
                ctypes.c_size_t(x.numel()), BFLOAT16, SUM, self._comm, ctypes.c_void_p(stream),
            )
        )  # fmt: skip

    @staticmethod
    def _take(status: int) -> None:
        if status:
            raise RuntimeError(f"NCCL answered {status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl")
    exchange = Exchange(dist.group.WORLD)
    memory, raw = SymmetricAllocation(dist.group.WORLD, device, 1 << 20), Raw(exchange)
    calls: dict[str, graph_timing.Call] = {
        "dist.all_reduce": lambda x, y: dist.all_reduce(x),
        "dist.all_reduce, asynchronous": lambda x, y: dist.all_reduce(x, async_op=True).wait(),
        "ncclAllReduce, in place": lambda x, y: raw(x, x),
        "ncclAllReduce, out of place": raw,
    }
    variables = {name: value for name, value in os.environ.items() if name.startswith("NCCL_")}
    rows = []
    for name, call in calls.items():
        row: dict[str, object] = {"call": name}
        for nbytes in SIZES:
            flat = torch.zeros((2 * graph_timing.PAIRS, nbytes // 2), device=device).bfloat16()
            pairs = [(flat[2 * p], flat[2 * p + 1]) for p in range(graph_timing.PAIRS)]
            count = graph_timing.operations(nbytes)
            exchange.barrier()
            graph = graph_timing.capture(call, pairs, count)
            us = graph_timing.replay_us(graph, count, memory.barrier, exchange.cpu_group)
            row[str(nbytes)] = round(us, 2)
        rows.append(row)
        if exchange.rank == 0:
            print(*row.values(), flush=True)
    if exchange.rank == 0:
        told = {
            "gpus": exchange.size,
            "torch": torch.__version__,
            "variables": variables,
            "rows": rows,
        }
        print(json.dumps(variables), flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(told, indent=1) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
