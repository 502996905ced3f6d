"""What ``ar(x, out=x)`` costs on top of ``dist.all_reduce(x)``: the choosing, checking and counting.

The library's own call varies by far more than this, so it is left out of both sides: the cost is
that of everything else. On NCCL the enqueueing is timed whole as well, ours and theirs in turn.

    python benchmarks/all_reduce_overhead.py [--json FILE]            gloo, CPU
    torchrun --nproc-per-node 2 benchmarks/all_reduce_overhead.py --backend nccl
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

from twinrun.collectives import library
from twinrun.collectives.all_reduce import AllReduce

CALLS, ROUNDS = 2000, 31
LIMIT_US = 3.0


class _Nothing:
    """Stands in for torch.distributed in the library's reducer: a call that does nothing."""

    @staticmethod
    def all_reduce(tensor: torch.Tensor, group: object = None) -> None:
        """Nothing."""


def own_cost(ar: AllReduce, x: torch.Tensor) -> float:
    """Microseconds of ``ar(x, out=x)`` without the library's call."""
    kept, library.dist = library.dist, _Nothing  # type: ignore[assignment]
    try:
        ours = _least(lambda: ar(x, out=x))
        theirs = _least(lambda: _Nothing.all_reduce(x, group=None))
    finally:
        library.dist = kept
    return ours - theirs


def whole(ar: AllReduce, x: torch.Tensor) -> tuple[float, float]:
    """Microseconds of enqueueing, ours and the library's, in turn; the median of rounds."""
    ours, theirs = [], []
    for turn in range(ROUNDS):
        pair = [
            (ours, lambda: ar(x, out=x)),
            (theirs, lambda: dist.all_reduce(x, group=dist.group.WORLD)),
        ]
        for times, call in pair if turn % 2 else reversed(pair):
            times.append(_time(call, 200))
            torch.cuda.synchronize()
    return statistics.median(ours), statistics.median(theirs)


def _least(call: Callable[[], object]) -> float:
    return min(_time(call, CALLS) for _ in range(ROUNDS))


def _time(call: Callable[[], object], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls * 1e6


def measure(backend: str) -> dict[str, float | str]:
    """The figures of this rank."""
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if backend == "nccl" else "cpu"
    with AllReduce(backend=backend, device=device) as ar:
        x = torch.zeros(256, device=device)
        ar(x, out=x)
        row: dict[str, float | str] = {"backend": backend, "own_us": round(own_cost(ar, x), 3)}
        if backend == "nccl":
            ours, theirs = whole(ar, x)
            row |= {"ours_us": round(ours, 2), "dist_us": round(theirs, 2)}
        return row


def _gloo_rank(rank: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    if rank == 0:
        Path(out).write_text(json.dumps(measure("gloo")))
    else:
        with AllReduce(backend="gloo") as ar:
            ar(torch.zeros(256))
    dist.destroy_process_group()


def _gloo() -> dict[str, float | str]:
    with tempfile.TemporaryDirectory() as folder:
        store, out = str(Path(folder) / "store"), str(Path(folder) / "row.json")
        processes.spawn(_gloo_rank, (store, out), nprocs=2)
        row: dict[str, float | str] = json.loads(Path(out).read_text())
        return row


def _nccl() -> dict[str, float | str]:
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    row = measure("nccl")
    dist.destroy_process_group()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["gloo", "nccl"], default="gloo")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    row = _gloo() if args.backend == "gloo" else _nccl()
    if os.environ.get("RANK", "0") != "0":
        return
    row["limit_us"] = LIMIT_US
    print(" ".join(f"{name}={value}" for name, value in row.items()))
    if args.json:
        about = {
            "command": " ".join(["python", *sys.argv]), "torch": torch.__version__,
            "python": platform.python_version(), "cores": os.cpu_count(),
        }  # fmt: skip
        args.json.write_text(json.dumps({"about": about, "row": row}, indent=1) + "\n")


if __name__ == "__main__":
    main()
