"""Checks and sweeps the all-reduce kernels over launch shapes; the raw material of the tuning table.

    torchrun --standalone --nproc-per-node 4 benchmarks/tune_all_reduce.py --out tune_4.json

Each rank drives one GPU. Every kernel's result is first compared, bit for bit, with the stated
order summed by torch on the device. Then each size is timed for each kernel and launch shape by
the method of ``twinrun.collectives.graph_timing``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.distributed as dist

from twinrun.collectives import graph_timing, one_shot_push, two_shot_push
from twinrun.collectives.kernel_set import KernelSet
from twinrun.collectives.symmetric_memory import SymmetricAllocation
from twinrun.collectives.workspace import Workspace
from twinrun.kernels.arguments import EMPTY_BYTE, MAX_THREADS, SLOTS, workspace_bytes

KIB, MIB = 1 << 10, 1 << 20
SIZES = [KIB << k for k in (0, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)]
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class Bench:
    def __init__(self, most_bytes: int) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda", self.rank)
        torch.cuda.set_device(self.device)
        self.cpu = dist.new_group(backend="gloo")
        self.group = dist.group.WORLD
        self.slot = max(
            two_shot_push.slot_bytes(self.world, most_bytes),
            one_shot_push.slot_bytes(self.world, most_bytes if self.world == 2 else 16 * MIB),
        )
        self.memory = SymmetricAllocation(self.group, self.device, workspace_bytes(self.slot))
        self.memory.tensor[:SLOTS].zero_()
        self.memory.tensor[SLOTS:].fill_(EMPTY_BYTE)
        # Inputs and outputs of two_shot_pull lie in symmetric memory too: four pairs.
        self.pair_bytes = most_bytes
        self.io = SymmetricAllocation(self.group, self.device, 2 * graph_timing.PAIRS * most_bytes)
        self.rows = self.make_rows()
        self.report = torch.zeros(4, dtype=torch.int32).pin_memory()
        workspace = Workspace(self.memory.addresses, self.slot, self.memory.free)
        self.workspace = workspace
        self.kernels = KernelSet(workspace, self.rank, self.device)
        self.checked = KernelSet(workspace, self.rank, self.device, self.report, 5.0)
        torch.cuda.synchronize()
        dist.barrier(self.cpu)

    def kernels_with(self, tuning: tuple[str, ...]) -> KernelSet:
        return KernelSet(self.workspace, self.rank, self.device, tuning=tuning)

    def make_rows(self) -> torch.Tensor:
        """Row p: pair p out of place; row 4 + p: input p in place."""
        step, pairs = self.pair_bytes, graph_timing.PAIRS
        table = []
        for p in range(2 * pairs):
            inputs = [a + (p % pairs) * 2 * step for a in self.io.addresses]
            outputs = [a + step for a in inputs] if p < pairs else inputs
            table.append(inputs + outputs)
        return torch.tensor(table, dtype=torch.int64, device=self.device)

    def pair(self, p: int, nbytes: int, dtype: torch.dtype, in_place: bool = False):
        step = self.pair_bytes
        begin = p * 2 * step
        x = self.io.tensor[begin : begin + nbytes].view(dtype)
        y = x if in_place else self.io.tensor[begin + step : begin + step + nbytes].view(dtype)
        return x, y

    def row(self, p: int, in_place: bool) -> int:
        return self.rows[p + graph_timing.PAIRS * in_place].data_ptr()

    def barrier(self) -> None:
        self.io._handle.barrier(channel=0)

    def inputs(self, rank: int, count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
        generator = torch.Generator(self.device).manual_seed(seed * 64 + rank)
        x = torch.randn(count, generator=generator, device=self.device, dtype=torch.float32)
        scale = torch.randint(-12, 12, (count,), generator=generator, device=self.device)
        x = torch.ldexp(x, scale).to(dtype)
        if seed % 2:
            special = torch.randint(0, 400, (count,), generator=generator, device=self.device)
            x[special == 0] = -0.0
            x[special == 1] = float("inf")
            x[special == 2] = float("nan")
            bits = x.view(torch.int32 if dtype == torch.float32 else torch.int16)
            bits[special == 3] = -1  # the word that means "not here yet"
            if seed % 4 == 3:
                x[: count // 2] = -0.0
        return x

    def expected(self, parts: list[torch.Tensor], order: str) -> torch.Tensor:
        if order == "ranks":
            total = parts[0].float()
            for part in parts[1:]:
                total = total + part.float()
            return total.to(parts[0].dtype)
        level = parts
        while len(level) > 1:
            pairs = [
                (level[i].float() + level[i + 1].float()).to(parts[0].dtype)
                for i in range(0, len(level) - 1, 2)
            ]
            level = pairs + level[len(level) // 2 * 2 :]
        return level[0]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bits, where every NaN counts as one and the same."""
    ints = torch.int32 if a.dtype == torch.float32 else torch.int16
    nan = torch.isnan(a) & torch.isnan(b)
    return bool(((a.view(ints) == b.view(ints)) | nan).all())


def check(bench: Bench, kernels: KernelSet, quick: bool) -> dict:
    """Every kernel, dtype, order and a set of odd sizes against torch's own sum in that order."""
    counts = [1, 2, 7, 8, 9, 63, 512, 1000, 4099, 65536, 131072 + 5, 1 << 20]
    counts = counts[::3] if quick else counts
    done, wrong, seed = 0, [], 0
    for dtype_name, dtype in DTYPES.items():
        width = dtype.itemsize
        for order in ("ranks", "tree"):
            for count in counts:
                for kernel in ("one_shot_push", "two_shot_push", "two_shot_pull"):
                    for shape in ((1, 64, True), (16, 256, True), (132, 512, False)):
                        seed += 1
                        in_place = seed % 3 == 0
                        shift = width if seed % 5 == 0 and kernel != "two_shot_pull" else 0
                        parts = [bench.inputs(r, count, dtype, seed) for r in range(bench.world)]
                        x, y = bench.pair(0, shift + count * width, dtype, in_place)
                        x, y = x[shift // width :], y[shift // width :]
                        y.fill_(77.0)
                        x.copy_(parts[bench.rank])
                        torch.cuda.synchronize()
                        dist.barrier(bench.cpu)
                        kernels.start(
                            kernel, dtype_name, order, shape, x.data_ptr(), y.data_ptr(), count,
                            bench.row(0, in_place), done,
                        )  # fmt: skip
                        torch.cuda.synchronize()
                        if int(bench.report[0]):
                            raise SystemExit(
                                f"rank {bench.rank}: lost {bench.report.tolist()} {kernel} {count}"
                            )
                        ok = same(y, bench.expected(parts, order))
                        done += 1
                        if not ok:
                            wrong.append(
                                [kernel, dtype_name, order, count, list(shape), in_place, shift]
                            )
                        dist.barrier(bench.cpu)
    slots = bench.memory.tensor[SLOTS:]
    clean = all(bool((piece == EMPTY_BYTE).all()) for piece in slots.split(64 * MIB))
    return {"checked": done, "wrong": wrong[:20], "wrong_count": len(wrong), "slots_clean": clean}


def shapes(kernel: str, vectors: int, world: int) -> list[tuple[int, int]]:
    """Launch shapes worth trying for so many vectors of work."""
    found = set()
    for threads in (32, 64, 128, 256, MAX_THREADS):
        for each in (1, 2, 4):
            blocks = -(-vectors // (threads * each))
            if blocks <= 264:
                found.add((max(1, blocks), threads))
        if vectors > threads * 64:
            for blocks in (32, 48, 64, 88, 96, 120, 132, 198, 264):
                if blocks * threads <= 132 * 2048 and blocks * threads <= vectors:
                    found.add((blocks, threads))
    return sorted(found)


def sweep(bench: Bench, kernels: KernelSet, budget_s: float) -> list[dict]:
    began, rows = time.monotonic(), []
    dtype = torch.bfloat16
    for nbytes in SIZES:
        if nbytes > bench.pair_bytes:
            continue
        count = nbytes // 2
        ops = graph_timing.operations(nbytes)
        for kernel in ("one_shot_push", "two_shot_push", "two_shot_pull"):
            if kernel == "one_shot_push" and nbytes > one_shot_push.limit_bytes(
                bench.world, bench.slot
            ):
                continue
            if kernel == "one_shot_push" and bench.world > 2 and nbytes > 2 * MIB:
                continue
            if kernel == "two_shot_push" and (
                nbytes < 64 * KIB or nbytes > two_shot_push.limit_bytes(bench.world, bench.slot)
            ):
                continue
            if kernel == "two_shot_pull" and nbytes < MIB:
                continue
            work = nbytes // 16 if kernel == "one_shot_push" else nbytes // 16 // bench.world
            for blocks, threads in shapes(kernel, work, bench.world):
                for early in (
                    (True, False)
                    if nbytes <= 512 * KIB
                    else (False,)
                    if blocks * threads > 132 * 1024
                    else (True, False)
                ):
                    late = torch.tensor([time.monotonic() - began > budget_s], dtype=torch.int32)
                    dist.all_reduce(late, op=dist.ReduceOp.MAX, group=bench.cpu)
                    if int(late):
                        return rows
                    places = (False, True) if kernel == "two_shot_pull" else (False,)
                    for in_place in places:
                        row = time_one(
                            bench,
                            kernels,
                            kernel,
                            dtype,
                            count,
                            (blocks, threads, early),
                            ops,
                            in_place,
                        )
                        row |= {"bytes": nbytes}
                        rows.append(row)
    return rows


def time_one(bench, kernels, kernel, dtype, count, shape, ops, in_place, order="ranks") -> dict:
    pairs = [bench.pair(p, count * 2, dtype, in_place) for p in range(graph_timing.PAIRS)]
    rows = {x.data_ptr(): bench.row(p, in_place) for p, (x, _) in enumerate(pairs)}

    def call(x: torch.Tensor, y: torch.Tensor) -> None:
        kernels.start(
            kernel, "bfloat16", order, shape, x.data_ptr(), y.data_ptr(), count, rows[x.data_ptr()]
        )

    for x, _ in pairs:
        x.normal_()
    torch.cuda.synchronize()
    dist.barrier(bench.cpu)
    graph = graph_timing.capture(call, pairs, ops, warm=1)
    us = graph_timing.replay_us(graph, ops, bench.barrier, bench.cpu, replays=5)
    return {"kernel": kernel, "blocks": shape[0], "threads": shape[1], "early": shape[2],
            "in_place": in_place, "order": order, "us": round(us, 3)}  # fmt: skip


TUNINGS = (("old",), (), ("MIN_BLOCKS=2",), ("AHEAD=2",), ("AHEAD=2", "MIN_BLOCKS=2"), ("AHEAD=3", "MIN_BLOCKS=2"))


def experiment(bench: Bench) -> list[dict]:
    """The same shapes with other choices inside the kernels."""
    rows = []
    mine = {t: bench.kernels_with(() if t == ("old",) else t) for t in TUNINGS}
    for nbytes in (KIB, 16 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB, 64 * MIB):
        kernel = "one_shot_push" if bench.world == 2 or nbytes < 256 * KIB else "two_shot_push"
        work = nbytes // 16 // (1 if kernel == "one_shot_push" else bench.world)
        here = {(max(1, -(-work // (t * e))), t) for t in (64, 128, 256, 512) for e in (1, 2)}
        here |= {(b, t) for b in (132, 264) for t in (128, 256, 512) if b * t < work}
        here = {s for s in here if s[0] * s[1] <= 132 * 1024}
        for blocks, threads in sorted(here):
            for early in (True, False) if nbytes >= 4 * MIB else (True,):
                for tuning, kernels in mine.items():
                    name = "old_" + kernel if tuning == ("old",) else kernel
                    row = time_one(bench, kernels, name, torch.bfloat16, nbytes // 2, (blocks, threads, early), graph_timing.operations(nbytes), False)
                    rows.append(row | {"bytes": nbytes, "tuning": tuning, "kernel": kernel})
    pulls = {u: bench.kernels_with(() if u == "old" else (f"UNROLL={u}",)) for u in ("old", 1, 2)}
    for nbytes in (16 * MIB, 64 * MIB):
        for blocks, threads in ((88, 64), (132, 64), (132, 128), (132, 256), (88, 512)):
            for unroll, kernels in pulls.items():
                name = "old_two_shot_pull" if unroll == "old" else "two_shot_pull"
                row = time_one(bench, kernels, name, torch.bfloat16, nbytes // 2, (blocks, threads, True), graph_timing.operations(nbytes), True)
                rows.append(row | {"bytes": nbytes, "tuning": [f"UNROLL={unroll}"]})
    return rows


def eager(bench: Bench) -> dict:
    """Microseconds from one call to the next in Python, 1 KiB, nothing waited for."""
    x, y = bench.pair(0, KIB, torch.bfloat16)
    spent = {}
    for name in ("launch", "launch and empty_like"):
        torch.cuda.synchronize()
        dist.barrier(bench.cpu)
        began = time.perf_counter()
        for _ in range(2000):
            out = torch.empty_like(x) if name != "launch" else y
            bench.kernels.start(
                "one_shot_push",
                "bfloat16",
                "ranks",
                (1, 256, True),
                x.data_ptr(),
                out.data_ptr(),
                512,
            )
        spent[name] = round((time.perf_counter() - began) / 2000 * 1e6, 2)
        torch.cuda.synchronize()
    return spent


def show_experiments(bench: Bench, rows: list[dict]) -> None:
    chosen: dict[tuple, dict] = {}
    for row in rows:
        key = (row["bytes"], row["kernel"], tuple(row["tuning"]))
        if key not in chosen or row["us"] < chosen[key]["us"]:
            chosen[key] = row
    for (nbytes, kernel, tuning), row in chosen.items():
        if bench.rank == 0:
            print(
                nbytes >> 10,
                kernel,
                *tuning,
                row["blocks"],
                row["threads"],
                row["early"],
                row["us"],
                flush=True,
            )


def best(rows: list[dict]) -> list[dict]:
    chosen: dict[tuple, dict] = {}
    for row in rows:
        key = (row["bytes"], row["kernel"])
        if key not in chosen or row["us"] < chosen[key]["us"]:
            chosen[key] = row
    return list(chosen.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=64 * MIB)
    parser.add_argument("--budget", type=float, default=120.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--experiment", action="store_true")
    asked = parser.parse_args()
    dist.init_process_group("cpu:gloo,cuda:nccl")
    began = time.monotonic()
    bench = Bench(asked.most)

    def say(*words: object) -> None:
        if bench.rank == 0:
            print(f"[{time.monotonic() - began:6.1f}s]", *words, flush=True)

    say("set up, slot", bench.slot >> 20, "MiB")
    results: dict = {
        "world": bench.world,
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    results["check_checked"] = check(bench, bench.checked, quick=True)
    say("checked mode", results["check_checked"])
    results["check"] = check(bench, bench.kernels, asked.quick)
    say("check", results["check"])
    results["eager"] = eager(bench)
    say("eager", results["eager"])
    if asked.experiment:
        results["experiment"] = experiment(bench)
        say("experiments", len(results["experiment"]))
        show_experiments(bench, results["experiment"])
    results["rows"] = sweep(bench, bench.kernels, asked.budget)
    say("swept", len(results["rows"]))
    if bench.rank == 0:
        asked.out.write_text(json.dumps(results))
        for row in best(results["rows"]):
            print(
                row["bytes"],
                row["kernel"],
                row["blocks"],
                row["threads"],
                row["early"],
                row["in_place"],
                row["us"],
                flush=True,
            )
    dist.barrier(bench.cpu)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
