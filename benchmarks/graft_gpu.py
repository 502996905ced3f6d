"""What one graft costs between GPU processes of one host, beside raw copies, NCCL and all_gather_object.

Both jobs are real processes. A round begins when every rank has met the others in a small graft the
other way; a rank's time ends when its GPU has its value (its stream is waited for).

    one     a single graft after a pause, both sides from cold
    each    forty one after the other, each waited for by the receiver, as the raw copies beside them are: the
            median of single ones, as of those
    row     forty in a row, waited for once at the end, as in a program that goes on

Figures are per graft, medians over rounds of the slowest receiver, with fresh random values that are
compared bit for bit before anything is timed and once more afterwards. ``loop``: 20,000 turns of an empty
Python loop on the slowest rank, 300 us on a quiet Xeon of these machines: most of a graft is such time.

The floors, written down first (64 MiB float32 on H200, NVLink 18 links each way):
    between two GPUs     64 MiB / 345 GB/s                        = 195 us   mark 1.15 x raw copy
    on one GPU           64 MiB read and written at 4.3 TB/s      =  31 us   mark 1.5 x copy + 50 us
    4 -> 2 and 2 -> 2    32 MiB a receiver / 300 GB/s             = 112 us   mark 1.3 x that + 100 us
    4 KiB                two launches on each side and a poll     ~  25 us   mark 150 us
Senders' GPUs write straight into memory that becomes the receiver's tensor: one copy, between GPUs or on one.

    python benchmarks/graft_gpu.py [--rounds 12] [--json FILE] [--skip-reference]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MIB = 1 << 20
ROW = 40
WARM = 3
"""rounds before the ones that count: orders are made and pads opened in the first two"""


@dataclass(frozen=True)
class Case:
    """One row: GPUs of the baseline's ranks, of the target's, bytes of the whole tensor."""

    name: str
    baseline: tuple[int, ...]
    target: tuple[int, ...]
    nbytes: int = 64 * MIB
    log: str = "brief"
    channel: str = "auto"
    row: int = ROW

    @property
    def shape(self) -> tuple[int, int]:
        rows = 4096 if self.nbytes >= MIB else 1
        return rows, self.nbytes // 4 // rows


def _shard(case: Case, world: int, rank: int, seed: int, device: torch.device) -> torch.Tensor:
    made = torch.randn(
        case.shape, generator=torch.Generator(device).manual_seed(seed), device=device
    )
    return made.chunk(world, 1)[rank].contiguous()


def _timed(device: torch.device, body: Callable[[], Any], count: int = 1) -> float:
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(count):
        body()
    torch.cuda.current_stream(device).synchronize()
    return (time.perf_counter() - began) / count


def _rank(case: Case, role: str, rank: int, rounds: int, port: int, out: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    from twinrun.grafting.session import Session
    from twinrun.grafting.settings import Settings
    from twinrun.grafting.site import Site

    gpus = case.baseline if role == "baseline" else case.target
    world, device = len(gpus), torch.device("cuda", gpus[rank])
    torch.cuda.set_device(device)
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(world)})
    session = Session(
        Settings(
            role=role, address=f"127.0.0.1:{port}", b2t="name == 'x'", t2b="name == 'ready'",
            mesh=f"tp={world}", log=case.log, timeout_s=60, meeting_timeout_s=60, channel=case.channel,
        )
    )  # fmt: skip
    ready, step = torch.zeros(1), 0

    def turn(count: int, seed: int, check: bool, each: bool = False) -> float:
        nonlocal step
        x = _shard(case, world, rank, seed, device)
        wanted = x.clone() if check and role == "target" else None
        if role == "target":
            x.zero_()
        torch.cuda.synchronize(device)
        session.begin(step)
        session.pass_through(Site("ready", step), ready)
        site = Site("x", step, dims="t h[tp]")
        step += 1
        each_took, stream, clock = [], torch.cuda.current_stream(device), time.perf_counter
        began = clock()
        for _ in range(count):
            _, y = session.pass_through(site, x)
            if each and role == "target":
                stream.synchronize()
                each_took.append(clock())
        stream.synchronize()
        took = (clock() - began) / count
        if each_took:  # the median of single ones, as of the copies that they are held against
            took = statistics.median(map(float.__sub__, each_took[1:], each_took))
        if wanted is not None:
            assert torch.equal(y, wanted), "a graft brought the wrong values"
        return took

    for at in range(WARM):
        turn(1, at, True)
    turn(case.row, WARM, True)
    one = (
        [turn(1, 100 + at, False) for at in range(rounds)] if case.nbytes >= MIB else [0.0] * rounds
    )
    row = [turn(case.row, 200 + at, False) for at in range(rounds)]
    each, loops = [], []
    for at in range(rounds):
        each.append(turn(case.row, 300 + at, False, each=True))
        loops.append(_loop())
    turn(1, WARM + 1, True)
    roster = session.source.roster  # type: ignore[attr-defined]
    held = roster.device_buffer.used_bytes
    others = [p for p in roster.peers.values() if p.rank.role != role]
    over = {p.sending.over for p in others if p.sending is not None and p.sending.over}
    session.close()
    assert not session.ended and session.journal.failed == 0, session.ended
    out.send((role, rank, one, row, held, ", ".join(sorted(over)), each, statistics.median(loops)))


def _loop() -> float:
    """Seconds of a fixed piece of Python: how fast this processor is just now, which others may share."""
    began = time.perf_counter()
    for _ in range(20_000):
        pass
    return time.perf_counter() - began


def _peer_copy(gpus: tuple[int, int], rounds: int, role: int, pipe: Any, out: Any) -> None:
    """One process maps the other's 64 MiB through a CUDA IPC handle and copies it."""
    from twinrun.grafting.cuda import Cuda

    layer, device = Cuda(), torch.device("cuda", gpus[role])
    torch.cuda.set_device(device)
    torch.zeros(1, device=device)
    if role == 0:
        shown = layer.exporter(device, 64 * MIB).export((64 * MIB,), torch.uint8)
        shown.memory.random_()
        torch.cuda.synchronize(device)
        pipe.send((shown.handle, shown.address - shown.base, shown.extent))
        pipe.recv()
        out.send(("source", 0, [], [], 0, ""))
        return
    handle, offset, extent = pipe.recv()
    there = layer.flat(device, layer.open(device, handle, extent) + offset, 64 * MIB)
    here = torch.empty_like(there)
    for _ in range(5):
        here.copy_(there)
    one = [_timed(device, lambda: here.copy_(there)) for _ in range(2 * rounds)]
    row = [_timed(device, lambda: here.copy_(there), ROW) for _ in range(rounds)]
    assert torch.equal(here, there)
    pipe.send("done")
    out.send(("target", 0, one, row, 0, ""))


def _nccl(gpus: tuple[int, ...], way: str, rounds: int, rank: int, port: int, out: Any) -> None:
    """Send and receive between two, or tensors pickled and gathered to every rank."""
    import torch.distributed as dist

    device = torch.device("cuda", gpus[rank])
    torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=len(gpus), device_id=device
    )  # fmt: skip
    x = torch.randn(16 * MIB, device=device)

    def send_receive() -> None:
        dist.send(x, 1) if rank == 0 else dist.recv(x, 0)

    def gather() -> None:
        gathered: list[Any] = [None] * len(gpus)
        dist.all_gather_object(gathered, x if rank < len(gpus) // 2 else None)

    body = send_receive if way == "send" else gather
    for _ in range(3 if way == "send" else 1):
        body()
    times = []
    for _ in range(rounds if way == "send" else 2):
        dist.barrier()
        times.append(_timed(device, body))
    dist.destroy_process_group()
    out.send(("target" if rank else "source", rank, times, times, 0, ""))


def _run(target: Any, arguments: list[tuple[Any, ...]], limit_s: float = 120) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    started = []
    for row in arguments:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=target, args=(*row, theirs), daemon=True)
        process.start()
        theirs.close()
        started.append((process, mine))
    until, answers = time.monotonic() + limit_s, []
    try:
        for _, pipe in started:
            if not pipe.poll(max(0.0, until - time.monotonic())):
                raise SystemExit("a rank of the benchmark does not answer")
            answers.append(pipe.recv())
    finally:
        for process, _ in started:
            process.join(10)
            process.kill()
    return answers


def _slowest(answers: list[Any], which: int) -> float:
    times = [answer[which] for answer in answers if answer[0] == "target"]
    return statistics.median(map(max, zip(*times, strict=True)))


def _port() -> int:
    from twinrun.grafting.jobs import free_port

    return free_port()


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """One case: microseconds of one graft and of one in a row, the channel, and what receivers set aside."""
    port = _port()
    ranks = [("baseline", r) for r in range(len(case.baseline))]
    ranks += [("target", r) for r in range(len(case.target))]
    answers = _run(_rank, [(case, role, r, rounds, port) for role, r in ranks])
    return {
        "case": case.name,
        "bytes": case.nbytes,
        "log": case.log,
        "one_us": _slowest(answers, 2) * 1e6,
        "each_us": _slowest(answers, 6) * 1e6,
        "row_us": _slowest(answers, 3) * 1e6,
        "python_loop_us": max(a[7] for a in answers) * 1e6,
        "pads_mib": max(a[4] for a in answers) / MIB,
        "channel": next(a[5] for a in answers if a[0] == "baseline"),
    }


def references(rounds: int, gpus: int, gathered: bool) -> dict[str, float]:
    """Microseconds of raw copies and of NCCL, on the same machine in the same run."""
    found = {}
    pairs = {"copy on one GPU": (0, 0)} | ({"peer copy": (0, 1)} if gpus > 1 else {})
    for name, pair in pairs.items():
        a, b = multiprocessing.get_context("spawn").Pipe()
        answers = _run(_peer_copy, [(pair, rounds, 0, a), (pair, rounds, 1, b)])
        found[name] = _slowest(answers, 2) * 1e6
        found[f"{name}, in a row"] = _slowest(answers, 3) * 1e6
    if gpus > 1 and gathered:
        port = _port()
        told = _run(_nccl, [((0, 1), "send", rounds, r, port) for r in range(2)])
        found["NCCL send and receive"] = _slowest(told, 2) * 1e6
        world, port = tuple(range(gpus)), _port()
        told = _run(_nccl, [(world, "gather", rounds, r, port) for r in range(gpus)])
        found[f"all_gather_object, {gpus} GPUs"] = _slowest(told, 2) * 1e6
    return found


def cases(gpus: int) -> list[Case]:
    """What can be run on so many GPUs."""
    one = [
        Case("1 -> 1, one GPU", (0,), (0,)),
        Case("1 -> 1, one GPU", (0,), (0,), 4096, row=200),
    ]
    if gpus < 2:
        return one
    last = (2, 3) if gpus >= 4 else (0, 1)
    every = tuple(n % gpus for n in range(4))
    return [
        Case("1 -> 1, two GPUs", (0,), (1,)),
        Case("1 -> 1, two GPUs", (0,), (1,), log="full"),
        Case("1 -> 1, two GPUs", (0,), (1,), 4096, row=200),
        *one,
        Case(f"2 -> 2, {min(gpus, 4)} GPUs", (0, 1), last),
        Case(f"4 -> 2, {min(gpus, 4)} GPUs", every, last),
        Case("1 -> 1, NCCL", (0,), (1,), channel="nccl", row=8),
        Case("1 -> 1, host", (0,), (1,), channel="host", row=4),
    ]


def marks(row: dict[str, Any], floors: dict[str, float]) -> float | None:
    """What the issue asks of a row, in microseconds."""
    if row["log"] != "brief" or row["channel"] != "cuda ipc":
        return None
    if row["bytes"] == 4096:
        return 150.0
    if row["case"].startswith("1 -> 1, two"):
        return 1.15 * floors["peer copy"]
    if row["case"].startswith("1 -> 1, one"):
        return 1.5 * floors["copy on one GPU"] + 50
    return 1.3 * (row["bytes"] / 2 / 300e3) + 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--skip-reference", action="store_true")
    parser.add_argument("--only", default="", help="a part of the names of the cases to run")
    arguments = parser.parse_args()
    gpus = torch.cuda.device_count()
    floors = references(arguments.rounds, gpus, gathered=not arguments.skip_reference)
    for name, took in floors.items():
        print(f"{name:28} {took:10.1f} us", flush=True)
    rows = []
    for case in cases(gpus):
        if arguments.only not in case.name:
            continue
        try:
            row = measure(case, arguments.rounds)
        except (SystemExit, EOFError) as error:
            print(f"{case.name:18} FAILED: {error!r}", flush=True)
            continue
        row["mark_us"] = marks(row, floors)
        rows.append(row)
        mark = f"mark {row['mark_us']:7.1f}" if row["mark_us"] else ""
        print(
            f"{row['case']:18} {row['bytes']:>9} B  {row['log']:5}  one {row['one_us']:9.1f}   "
            f"each {row['each_us']:9.1f}   row {row['row_us']:9.1f} us   {mark:14} pads {row['pads_mib']:6.0f} MiB   "
            f"loop {row['python_loop_us']:5.0f}   {row['channel']}",
            flush=True,
        )
        keep(arguments.json, gpus, floors, rows)


def keep(
    path: Path | None, gpus: int, floors: dict[str, float], rows: list[dict[str, Any]]
) -> None:
    """Write what has been measured so far: a run that is cut short keeps its rows."""
    if path is None:
        return
    facts = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{gpus} x {torch.cuda.get_device_name(0)}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "python": platform.python_version(),
        "references_us": floors,
        "rows": rows,
    }
    path.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
