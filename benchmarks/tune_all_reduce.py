"""Sweeps the all-reduce kernels over launch shapes and writes the tuning table.

    torchrun --standalone --nproc-per-node 4 benchmarks/tune_all_reduce.py --out tune_4.json
    python benchmarks/tune_all_reduce.py --merge tune_2.json tune_4.json --date 2026-11-21

Each rank drives one GPU. Every size is timed for each kernel and launch shape by the method of
``twinrun.collectives.graph_timing``. The second command picks the fastest row of every size and
writes src/twinrun/collectives/tuning.json; it needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from twinrun.collectives import graph_timing, one_shot_push, tuning, two_shot_push
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.ipc_memory import fill
from twinrun.collectives.kernel_set import KernelSet, Sharing
from twinrun.collectives.symmetric_memory import SymmetricAllocation
from twinrun.collectives.workspace import Workspace
from twinrun.kernels.arguments import EMPTY_BYTE, MAX_THREADS, SLOTS, workspace_bytes

KIB, MIB = 1 << 10, 1 << 20
SIZES = [KIB << k for k in range(17)]
SIZES = sorted([*SIZES, *(KIB * 3 << k for k in range(5, 13))])
# What one launch carries at most; larger tensors go in several.
MOST_BYTES = 16 * MIB
PULL_FROM = 8 * MIB
KERNELS = {"one_shot_push": one_shot_push, "two_shot_push": two_shot_push}


class Bench:
    """A workspace for the push kernels and four buffer pairs in symmetric memory."""

    def __init__(self, most_bytes: int) -> None:
        self.exchange = Exchange(dist.group.WORLD)
        self.rank, self.world = self.exchange.rank, self.exchange.size
        self.device = torch.device("cuda", self.rank)
        torch.cuda.set_device(self.device)
        self.cpu = self.exchange.cpu_group
        self.slot = slot_bytes(self.world)
        self.memory = SymmetricAllocation(dist.group.WORLD, self.device, workspace_bytes(self.slot))
        own = self.memory.addresses[self.rank]
        fill(self.device, own, 0, SLOTS)
        fill(self.device, own + SLOTS, EMPTY_BYTE, 2 * self.slot)
        self.pair_bytes = most_bytes
        pairs = 2 * graph_timing.PAIRS * most_bytes
        self.io = SymmetricAllocation(dist.group.WORLD, self.device, pairs)
        self.plain = torch.empty(pairs, dtype=torch.uint8, device=self.device)
        self.rows = self._rows()
        workspace = Workspace(self.memory.addresses, self.slot, self.memory.free)
        processors = torch.cuda.get_device_properties(self.device).multi_processor_count
        self.sharing = Sharing(processors, 2)
        self.kernels = KernelSet(workspace, self.rank, self.device, self.sharing)
        self.exchange.barrier()

    def _rows(self) -> torch.Tensor:
        """Row p of two_shot_pull: pair p, out of place."""
        step = self.pair_bytes
        table = []
        for p in range(graph_timing.PAIRS):
            inputs = [a + p * 2 * step for a in self.io.addresses]
            table.append(inputs + [a + step for a in inputs])
        return torch.tensor(table, dtype=torch.int64, device=self.device)

    def pairs(self, nbytes: int, symmetric: bool) -> list[graph_timing.Pair]:
        step, flat = self.pair_bytes, self.io.tensor if symmetric else self.plain
        assert flat is not None
        found = []
        for begin in range(0, 2 * graph_timing.PAIRS * step, 2 * step):
            x = flat[begin : begin + nbytes].view(torch.bfloat16)
            found.append((x, flat[begin + step : begin + step + nbytes].view(torch.bfloat16)))
        return found

    def time_us(self, kernel: str, nbytes: int, blocks: int, threads: int, replays: int) -> float:
        pairs = self.pairs(nbytes, symmetric=kernel not in KERNELS)
        rows = {x.data_ptr(): self.rows[p].data_ptr() for p, (x, _) in enumerate(pairs)}
        most = nbytes
        if kernel in KERNELS:
            rows = {}
            most = KERNELS[kernel].limit_bytes(self.world, self.slot)

        ready = self.kernels.ready(kernel, "bfloat16", "ranks", blocks, threads)

        def call(x: torch.Tensor, y: torch.Tensor) -> None:
            row = rows.get(x.data_ptr(), 0)
            for begin in range(0, nbytes, most):
                count = min(most, nbytes - begin) // 2
                ready.start(x.data_ptr() + begin, y.data_ptr() + begin, count, row)

        for x, _ in pairs:
            x.normal_()
        self.exchange.barrier()
        operations = graph_timing.operations(nbytes)
        graph = graph_timing.capture(call, pairs, operations, warm=1)
        return graph_timing.replay_us(graph, operations, self.io.barrier, self.cpu, replays)


def slot_bytes(world: int) -> int:
    """Slots for ``MOST_BYTES`` in one launch of whichever kernel is used there."""
    chosen = one_shot_push if world == 2 else two_shot_push
    return chosen.slot_bytes(world, MOST_BYTES)


def shapes(sharing: Sharing, vectors: int, world: int) -> list[tuple[int, int]]:
    """Launch shapes worth trying for so many vectors of work."""
    found = set()
    for threads in (64, 128, 256, MAX_THREADS):
        tried = [-(-vectors // (threads * each)) for each in (1, 2, 4)]
        if vectors > threads * 64:
            tried += [64, 88, 132, 198, 264]
        for blocks in tried:
            blocks = sharing.grid(world, max(1, blocks), threads)[0]
            if blocks * threads * 12 >= min(vectors, 132 * 256 * 12):
                found.add((blocks, threads))
    return sorted(found)


def kernels_at(world: int, nbytes: int) -> list[str]:
    """The kernels that may win at this size."""
    if world == 2:
        found = ["one_shot_push"] + ["two_shot_push"] * (nbytes >= 2 * MIB)
    else:
        found = ["one_shot_push"] * (nbytes <= 512 * KIB) + ["two_shot_push"] * (nbytes >= 64 * KIB)
    return found + ["two_shot_pull"] * (nbytes >= PULL_FROM)


def sweep(bench: Bench, budget_s: float) -> list[dict[str, object]]:
    """Every shape once; the best four of each kernel and size three times more, the worst counts."""
    began, rows = time.monotonic(), []
    for nbytes in SIZES:
        for kernel in kernels_at(bench.world, nbytes):
            vectors = min(nbytes, MOST_BYTES) // 16
            work = vectors if kernel == "one_shot_push" else vectors // bench.world
            tried = shapes(bench.sharing, work, bench.world)
            # Reads crowd each other: fewer threads may do better.
            tried += [(b, t) for b in (44, 88, 132) for t in (64, 128) if kernel == "two_shot_pull"]
            once = {shape: bench.time_us(kernel, nbytes, *shape, 5) for shape in tried}
            ranking = sorted(once, key=lambda shape: once[shape])
            for shape in ranking:
                final = shape in ranking[:4]
                again = [bench.time_us(kernel, nbytes, *shape, 9) for _ in range(3 * final)]
                us = round(max([once[shape], *again]), 3)
                rows.append(
                    {"bytes": nbytes, "kernel": kernel, "blocks": shape[0], "threads": shape[1]}
                    | {"us": us, "final": final}
                )
            if max(bench.exchange.gather_json(time.monotonic() - began)) > budget_s:
                return rows
    return rows


def best(rows: list[dict], kernels: tuple[str, ...]) -> list[dict]:
    """The fastest row of every size among these kernels."""
    chosen: dict[int, dict] = {}
    for row in rows:
        if row["kernel"] not in kernels or not row["final"]:
            continue
        if row["bytes"] not in chosen or row["us"] < chosen[row["bytes"]]["us"]:
            chosen[row["bytes"]] = row
    return [chosen[nbytes] for nbytes in sorted(chosen)]


def merge(paths: list[Path], date: str) -> None:
    """Write the tuning table from the sweeps in ``paths``."""
    tables = []
    for path in paths:
        told = json.loads(path.read_text())
        pushes = best(told["rows"], ("one_shot_push", "two_shot_push"))
        pulls = best(told["rows"], ("two_shot_pull",))
        faster = {row["bytes"]: row["us"] for row in pushes}
        won = [row for row in pulls if row["us"] < faster[row["bytes"]]]
        tables.append(
            {
                "backend": "symmetric",
                "gpu": told["gpu"],
                "world": told["world"],
                "machine": f"{told['world']} x {told['gpu']}",
                "date": date,
                "command": told["command"],
                "slot_bytes": told["slot_bytes"],
                "rows": [_row(row) for row in pushes],
                "pull": _row(won[0]) if won else None,
            }
        )
    tuning.TABLE.write_text(_text(tables))


def _row(row: dict) -> list[object]:
    return [row["bytes"], row["kernel"], row["blocks"], row["threads"]]


def _text(tables: list[dict]) -> str:
    """JSON with a row a line."""
    for table in tables:
        assert asdict(tuning._table(table))
    text = json.dumps({"tables": tables}, indent=1)
    return re.sub(r"\[\s+(\d+),\s+(\S+),\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2, \3, \4]", text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", type=float, default=300.0, help="seconds of sweeping at most")
    parser.add_argument("--merge", type=Path, nargs="+", help="sweeps to make the table from")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    asked = parser.parse_args()
    if asked.merge:
        merge(asked.merge, asked.date)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl")
    bench = Bench(SIZES[-1])
    rows = sweep(bench, asked.budget)
    if bench.rank == 0:
        told = {
            "world": bench.world, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
            "slot_bytes": bench.slot, "rows": rows,
            "command": f"torchrun --standalone --nproc-per-node {bench.world} benchmarks/tune_all_reduce.py",
        }  # fmt: skip
        asked.out.write_text(json.dumps(told))
        for row in best(rows, tuple(KERNELS)) + best(rows, ("two_shot_pull",)):
            print(*row.values(), flush=True)
    bench.exchange.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
