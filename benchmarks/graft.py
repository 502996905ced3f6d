"""What one graft costs between CPU processes of one host, beside a memory copy and all_gather_object.

Both jobs are real processes. A round begins when every rank has met the others in a small graft the
other way; a rank's time ends when it holds its value. A round's figure is the slowest receiver's.
The memory copy is of the same bytes as one receiver needs, timed in the same processes between
the rounds, all receivers at once. all_gather_object is the way that other tools of this field use.

    python benchmarks/graft.py [--mib 64] [--rounds 15] [--json FILE] [--skip-reference]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import socket
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """One row: how many ranks on each side, how many bytes the whole tensor has, which log."""

    name: str
    baseline: int
    target: int
    nbytes: int
    log: str = "brief"
    sharded: bool = True
    grafts: int = 1
    """how many in a row make one round; a round's figure is for one of them"""

    @property
    def receiver_bytes(self) -> int:
        return self.nbytes // self.target


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rows(case: Case) -> int:
    return max(1, case.nbytes // (4 * 4096))


def _shard(case: Case, world: int, rank: int) -> torch.Tensor:
    rows = _rows(case)
    columns = case.nbytes // 4 // rows
    whole = torch.arange(rows * columns, dtype=torch.float32).view(rows, columns)
    return whole.chunk(world, 1)[rank].contiguous()


def _graft_rank(
    case: Case, role: str, rank: int, world: int, rounds: int, port: int, out: Any
) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    from twinrun.grafting.session import Session
    from twinrun.grafting.settings import Settings
    from twinrun.grafting.site import Site

    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(world)})
    session = Session(
        Settings(
            role=role, address=f"127.0.0.1:{port}", b2t="name == 'x'", t2b="name == 'ready'",
            mesh=f"tp={world}", log=case.log, timeout_s=120, meeting_timeout_s=120,
        )
    )  # fmt: skip
    x = _shard(case, world, rank)
    expected = x.clone() if role == "target" else None
    if role == "target":
        x.zero_()
    ready = torch.zeros(1)
    dims = "t h[tp]" if case.sharded else ""
    times, copies = [], []
    source, sink = torch.ones(case.receiver_bytes // 4), torch.zeros(case.receiver_bytes // 4)
    before = _resident()
    peak = 0
    for step in range(rounds):
        session.begin(step)
        # Every rank of one job hears every rank of the other, so that nobody is late.
        y = None  # a program lets go of a layer's value before the next step brings another
        _meet(session, Site, role, ready, step)
        site = Site("x", step, dims=dims)
        began = time.perf_counter()
        for _ in range(case.grafts):
            _, y = session.pass_through(site, x)
        times.append((time.perf_counter() - began) / case.grafts)
        if role == "target":
            if step == 0:
                assert torch.equal(y, expected), "a graft brought the wrong values"
            peak = max(peak, _resident() - before)
            began = time.perf_counter()
            ctypes.memmove(sink.data_ptr(), source.data_ptr(), case.receiver_bytes)
            copies.append(time.perf_counter() - began)
    session.close()
    out.send((role, rank, times, copies, peak))


def _meet(session: Any, site: Any, role: str, ready: torch.Tensor, step: int) -> None:
    del role
    session.pass_through(site("ready", step), ready)


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def _reference_rank(case: Case, rank: int, rounds: int, port: int, out: Any) -> None:
    """The way of gathering pickled tensors to every rank of both jobs."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    world = case.baseline + case.target
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
    )
    sends = rank < case.baseline
    x = _shard(case, case.baseline, rank) if sends else None
    times = []
    for _ in range(rounds):
        dist.barrier()
        began = time.perf_counter()
        gathered: list[Any] = [None] * world
        dist.all_gather_object(gathered, x)
        if not sends:
            whole = torch.cat([part for part in gathered if part is not None], dim=1)
            whole.chunk(case.target, 1)[rank - case.baseline].contiguous()
        times.append(time.perf_counter() - began)
    dist.destroy_process_group()
    out.send(("target" if not sends else "baseline", rank, times, [], 0))


def _collect(processes: list[Any], pipes: list[Any]) -> list[Any]:
    answers = []
    for pipe in pipes:
        if not pipe.poll(300):
            raise SystemExit("a rank of the benchmark does not answer")
        answers.append(pipe.recv())
    for process in processes:
        process.join()
    return answers


def _run(target: Any, arguments: list[tuple[Any, ...]]) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], []
    for row in arguments:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=target, args=(*row, theirs))
        process.start()
        processes.append(process)
        pipes.append(mine)
    return _collect(processes, pipes)


def _slowest(answers: list[Any], which: int, skip: int, of: Any = statistics.median) -> float:
    receivers = [answer[which] for answer in answers if answer[0] == "target"]
    return of(max(times) for times in list(zip(*receivers, strict=True))[skip:])


def measure(case: Case, rounds: int, reference: bool) -> dict[str, Any]:
    """One row: milliseconds of a graft, of a memory copy of the same bytes, and of the reference."""
    port = _free_port()
    ranks = [("baseline", r, case.baseline) for r in range(case.baseline)]
    ranks += [("target", r, case.target) for r in range(case.target)]
    answers = _run(_graft_rank, [(case, *rank, rounds, port) for rank in ranks])
    ours, copy = _slowest(answers, 2, 3), _slowest(answers, 3, 3)
    best, best_copy = _slowest(answers, 2, 3, min), _slowest(answers, 3, 3, min)
    row = {
        "case": case.name,
        "bytes": case.nbytes,
        "log": case.log,
        "graft_ms": ours * 1e3,
        "copy_ms": copy * 1e3,
        "best_graft_ms": best * 1e3,
        "best_copy_ms": best_copy * 1e3,
        "sender_ms": statistics.median(t for a in answers if a[0] == "baseline" for t in a[2][3:])
        * 1e3,
        "receiver_extra_mib": max(a[4] for a in answers if a[0] == "target") / MIB,
        "receiver_box_mib": case.receiver_bytes / MIB,
    }
    if reference:
        port = _free_port()
        world = case.baseline + case.target
        told = _run(_reference_rank, [(case, rank, 4, port) for rank in range(world)])
        row["all_gather_object_ms"] = _slowest(told, 2, 1) * 1e3
    return row


def _cases(mib: int) -> list[Case]:
    size = mib * MIB
    return [
        Case("1 -> 1", 1, 1, size),
        Case("1 -> 1", 1, 1, size, log="full"),
        Case("2 -> 2", 2, 2, size),
        Case("4 -> 2", 4, 2, size),
        Case("1 -> 1", 1, 1, 4096, grafts=200),
        Case("1 -> 1", 1, 1, 4096, log="full", grafts=200),
    ]


def tap(rounds: int) -> float:
    """Microseconds of a tap in a program whose graft takes no such point, the median of ``rounds`` (mark: 1)."""
    from twinrun.grafting.session import Session
    from twinrun.grafting.settings import Settings
    from twinrun.grafting.site import Site

    session = Session(Settings(role="target", b2t="name == 'nowhere'", log="off"))
    sites, x, times = [Site(f"layers.{n}:output", 0) for n in range(64)], torch.zeros(4), []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(200):
            for site in sites:
                session.pass_through(site, x)
        times.append((time.perf_counter() - began) / (200 * len(sites)) * 1e6)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--skip-reference", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for case in _cases(arguments.mib):
        rounds = arguments.rounds
        row = measure(case, rounds, reference=not arguments.skip_reference and case.log == "brief")
        rows.append(row)
        reference = row.get("all_gather_object_ms")
        print(
            f"{row['case']:8} {case.nbytes:>10} B  {case.log:5}  graft {row['graft_ms']:8.3f} ms   "
            f"copy {row['copy_ms']:8.3f} ms   ratio {row['graft_ms'] / row['copy_ms']:6.2f}   "
            f"best {row['best_graft_ms']:8.3f} / {row['best_copy_ms']:8.3f} ms   "
            f"sender {row['sender_ms']:8.3f} ms   extra {row['receiver_extra_mib']:6.1f} of {row['receiver_box_mib']:.1f} MiB"
            + (
                f"   all_gather_object {reference:8.1f} ms ({reference / row['graft_ms']:.0f} x)"
                if reference
                else ""
            ),
            flush=True,
        )
    tap_us = tap(arguments.rounds)
    print(f"a tap that no filter takes  {tap_us:.2f} us   mark 1")
    if arguments.json:
        facts = {
            "command": " ".join(["python", *sys.argv]),
            "machine": platform.processor() or platform.machine(),
            "processors": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "tap_us": tap_us,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
