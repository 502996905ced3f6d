"""Tokens per second of a Llama-8B-shaped tensor-parallel decode step, by all-reduce.

    NCCL_GRAPH_MIXING_SUPPORT=0 torchrun --standalone --nproc-per-node 4 benchmarks/decode_loop.py --out decode_4.json

The variable lets NCCL do its best in a graph (docs/all-reduce.md).

Random weights, bfloat16, batch 1 and 32, a key-value cache of 1024 tokens, one CUDA graph a step:
32 layers with two all-reduces each. The same step is timed with Twinrun's all-reduce, with NCCL and
with torch's two-shot over symmetric memory; nothing else differs between them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.symmetric_memory import SymmetricAllocation

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD, VOCABULARY, CACHE = (
    4096, 14336, 32, 32, 8, 128, 128256, 1024,
)  # fmt: skip
STEPS, REPEATS = 50, 9

Reduce = Callable[[torch.Tensor], torch.Tensor]


class Layer:
    """One rank's shard of a decoder layer, with its part of the cache."""

    def __init__(self, world: int, batch: int) -> None:
        def weight(rows: int, columns: int) -> torch.Tensor:
            return torch.randn(rows, columns, device="cuda").bfloat16() * columns**-0.5

        self.heads, self.kv = HEADS // world, KV_HEADS // world
        self.qkv = weight((self.heads + 2 * self.kv) * HEAD, HIDDEN)
        self.o = weight(HIDDEN, self.heads * HEAD)
        self.up = weight(2 * INNER // world, HIDDEN)
        self.down = weight(HIDDEN, INNER // world)
        self.norms = torch.ones(2, HIDDEN, device="cuda", dtype=torch.bfloat16)
        shape = (batch, self.kv, CACHE, HEAD)
        self.keys, self.values = (torch.randn(shape, device="cuda").bfloat16() for _ in range(2))

    def __call__(self, x: torch.Tensor, reduce: Reduce) -> torch.Tensor:
        batch = x.shape[0]
        qkv = F.linear(F.rms_norm(x, (HIDDEN,), self.norms[0]), self.qkv)
        q, k, v = qkv.view(batch, -1, HEAD).split([self.heads, self.kv, self.kv], dim=1)
        self.keys[:, :, -1], self.values[:, :, -1] = k, v
        mixed = F.scaled_dot_product_attention(
            q.unsqueeze(2), self.keys, self.values, enable_gqa=True
        )
        x = x + reduce(F.linear(mixed.reshape(batch, -1), self.o))
        gate, up = F.linear(F.rms_norm(x, (HIDDEN,), self.norms[1]), self.up).chunk(2, dim=-1)
        return x + reduce(F.linear(F.silu(gate) * up, self.down))


def step_ms(layers: list[Layer], head: torch.Tensor, batch: int, reduce: Reduce) -> float:
    """Median milliseconds of one decode step in a graph."""
    x = torch.randn(batch, HIDDEN, device="cuda").bfloat16()

    def step() -> torch.Tensor:
        h = x
        for layer in layers:
            h = layer(h, reduce)
        return F.linear(h, head).argmax(-1)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    times = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(STEPS):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / STEPS)
    return statistics.median(times)


def contenders(batch: int, device: torch.device) -> dict[str, Reduce]:
    """The three all-reduces, each from a GEMM's output to a tensor that the next add reads."""
    ar = AllReduce(device=device)
    memory = SymmetricAllocation(dist.group.WORLD, device, batch * HIDDEN * 2)
    shared = memory.tensor.view(torch.bfloat16).view(batch, HIDDEN)
    name = dist.group.WORLD.group_name

    def nccl(x: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(x)
        return x

    def two_shot(x: torch.Tensor) -> torch.Tensor:
        shared.copy_(x)
        return torch.ops.symm_mem.two_shot_all_reduce_(shared, "sum", name)

    return {"twinrun": ar, "nccl": nccl, "torch two-shot": two_shot, "none": lambda x: x}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    dist.init_process_group("cpu:gloo,cuda:nccl")
    torch.cuda.set_device(dist.get_rank())
    device = torch.device("cuda", dist.get_rank())
    exchange, rows = Exchange(dist.group.WORLD), []
    torch.manual_seed(dist.get_rank())
    for batch in (1, 32):
        layers = [Layer(exchange.size, batch) for _ in range(LAYERS)]
        head = torch.randn(VOCABULARY // exchange.size, HIDDEN, device="cuda").bfloat16()
        for name, reduce in contenders(batch, device).items():
            ms = max(exchange.gather_json(step_ms(layers, head, batch, reduce)))
            rows.append(
                {"batch": batch, "all_reduce": name, "step_ms": round(ms, 4)}
                | {"tokens_per_second": round(batch / ms * 1e3, 1)}
            )
            if exchange.rank == 0:
                print(rows[-1], flush=True)
    if exchange.rank == 0 and asked.out:
        told = {
            "gpus": exchange.size, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
            "command": f"torchrun --nproc-per-node {exchange.size} benchmarks/decode_loop.py",
            "variables": {name: os.environ[name] for name in os.environ if name.startswith("NCCL_")},
            "rows": rows,
        }  # fmt: skip
        asked.out.write_text(json.dumps(told, indent=1) + "\n")
    exchange.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
