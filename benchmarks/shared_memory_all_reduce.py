"""The shared-memory all-reduce between CPU ranks of one host, beside gloo in the same run.

Both in one loop, taking turns at going first; the time of a round is that of its slowest rank, the
figure the median over rounds, and beside it the best round (what a busy machine disturbs least). One
thread a rank, as torchrun sets it.

    python benchmarks/shared_memory_all_reduce.py [--ranks 2 4] [--chunks] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from twinrun.collectives import shared_memory
from twinrun.collectives.all_reduce import AllReduce

SIZES = (4 << 10, 64 << 10, 1 << 20, 4 << 20)
CHUNKS = (256 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20)
ROUNDS = 40
_SCHEDULERS = {os.SCHED_OTHER: "normal", os.SCHED_RR: "real-time, round robin"}


def _rank(rank: int, size: int, store: str, chunks: list[int], out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    rows = []
    for chunk in chunks:
        shared_memory.CHUNK_BYTES = chunk
        with AllReduce(backend="shared_memory") as ar:
            rows += [_compare(ar, nbytes, size, chunk) for nbytes in SIZES]
    if rank == 0:
        Path(out).write_text(json.dumps(rows))
    dist.destroy_process_group()


def _compare(ar: AllReduce, nbytes: int, size: int, chunk: int) -> dict[str, float]:
    x = torch.randn(nbytes // 4)
    y, z = torch.empty_like(x), x.clone()
    calls = max(8, min(50, (1 << 20) // nbytes))
    ours, theirs = [], []
    for turn in range(ROUNDS + 5):
        pair = [(ours, lambda: ar(x, out=y)), (theirs, lambda: dist.all_reduce(z))]
        for times, call in pair if turn % 2 else reversed(pair):
            times.append(_slowest(call, calls))
    mine, gloo = (statistics.median(times[5:]) * 1e6 for times in (ours, theirs))
    best, gloos_best = (min(times[5:]) * 1e6 for times in (ours, theirs))
    return {
        "ranks": size, "bytes": nbytes, "chunk_bytes": chunk, "ours_us": round(mine, 1),
        "gloo_us": round(gloo, 1), "ratio": round(mine / gloo, 3), "ours_best_us": round(best, 1),
        "gloo_best_us": round(gloos_best, 1), "best_ratio": round(best / gloos_best, 3),
    }  # fmt: skip


def _slowest(call: Callable[[], object], calls: int) -> float:
    """Seconds a call, of the rank that took longest."""
    dist.barrier()
    began = time.perf_counter()
    for _ in range(calls):
        call()
    took = torch.tensor([(time.perf_counter() - began) / calls], dtype=torch.float64)
    dist.all_reduce(took, op=dist.ReduceOp.MAX)
    return float(took)


def run(size: int, chunks: list[int]) -> list[dict[str, float]]:
    """One group of ``size`` ranks."""
    with tempfile.TemporaryDirectory() as folder:
        store, out = str(Path(folder) / "store"), str(Path(folder) / "rows.json")
        processes.spawn(_rank, (size, store, chunks, out), nprocs=size)
        rows: list[dict[str, float]] = json.loads(Path(out).read_text())
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--chunks", action="store_true", help="compare chunk sizes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chunks = list(CHUNKS) if args.chunks else [shared_memory.CHUNK_BYTES]
    rows = [row for size in args.ranks for row in run(size, chunks)]
    heads = (
        "ranks",
        "bytes",
        "chunk",
        "ours, us",
        "gloo, us",
        "ratio",
        "best",
        "gloo best",
        "ratio",
    )
    print(f"| {' | '.join(heads)} |\n|{'---:|' * len(heads)}")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    if args.json:
        about = {
            "command": " ".join(["python", *sys.argv]), "torch": torch.__version__,
            "python": platform.python_version(), "scheduler": os.sched_getscheduler(0), "cores": os.cpu_count(), "load": os.getloadavg()[0],
        }  # fmt: skip
        args.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
