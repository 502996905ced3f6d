"""Reading run directories into processes and rows; the reader makes records of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from twinrun.errors import CaptureError
from twinrun.recorder.manifest import read_manifest, read_process
from twinrun.recorder.record import ProcessInfo, RunInfo
from twinrun.recorder.rows import Row, Rows
from twinrun.recorder.rundir import PROCESSES
from twinrun.recorder.shelf import Sealed, read_rows, sealed_segments
from twinrun.recorder.untrusted import plain_directory


@dataclass(slots=True)
class LoadedProcess:
    """A process and its rows, each with the index of its segment in ``payloads``."""

    info: ProcessInfo
    payloads: list[Path] = field(default_factory=list)
    rows: list[tuple[int, Row]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load_directory(directory: Path, rows: Rows) -> tuple[RunInfo, list[LoadedProcess]]:
    """One run directory; the run's ``problems`` include its processes'. CaptureError."""
    run, finished = read_manifest(directory)
    problems = list(run.problems)
    shelf = directory / PROCESSES
    if not plain_directory(shelf):
        raise CaptureError(f"{shelf} is missing, or no directory of its own")
    loaded = []
    for place in sorted(shelf.iterdir()):
        process = _process_or_none(place, run, rows, problems)
        if process is not None:
            loaded.append(process)
            problems += process.problems
    if run.origin == "run" and not finished:
        problems.append("the run still goes on, or was killed; what was sealed is read")
    if not any(process.rows for process in loaded):
        problems.append("no process recorded anything")
    # A capture that a block of the program opened has no other end than its processes' ends.
    complete = (run.complete or run.origin == "capture") and not problems
    return replace(run, problems=tuple(problems), complete=complete), loaded


def _process_or_none(
    directory: Path, run: RunInfo, rows: Rows, problems: list[str]
) -> LoadedProcess | None:
    if directory.name.startswith("."):
        return None
    if not plain_directory(directory):
        raise CaptureError(
            f"{directory} is no directory of its own",
            do="a capture holds no links and no files here",
        )
    if not os.path.lexists(directory / "process.json"):
        problems.append(f"{directory.name}: a process ended before anything was sealed")
        return None
    return _load_process(directory, run.mesh, rows)


def _load_process(directory: Path, mesh: str, rows: Rows) -> LoadedProcess:
    info, problems = read_process(directory, mesh)
    sealed, unsealed = sealed_segments(directory)
    loaded = LoadedProcess(info, [segment.payload for segment in sealed])
    cut = sum(_load_segment(loaded, at, segment, rows) for at, segment in enumerate(sealed))
    who = f"rank {info.rank} (pid {info.pid})"
    loaded.problems = [*problems, *unsealed, *(f"{who}: {text}" for text in info.problems)]
    if cut:
        loaded.problems.append(f"{who}: the values of {cut} records were cut off")
    if not info.ended:
        loaded.problems.append(f"{who} did not end in order; what it sealed is read")
    stored = sum(row.head.nbytes for _, row in loaded.rows if row.offset is not None)
    loaded.info = replace(info, records=len(loaded.rows), bytes=stored)
    return loaded


def _load_segment(loaded: LoadedProcess, at: int, segment: Sealed, rows: Rows) -> int:
    """Append the segment's rows; how many payloads lie outside what is left of its file."""
    cut = 0
    last = loaded.rows[-1][1].number if loaded.rows else -1
    for row in read_rows(segment, rows, len(loaded.info.roots)):
        if row.number <= last:
            raise CaptureError(
                f"{segment.index}: record {row.number} comes after record {last}",
                do="the file was changed or damaged (docs/format.md)",
            )
        last = row.number
        loaded.rows.append((at, row))
        if row.offset is not None and row.head.nbytes:
            cut += row.offset + row.head.nbytes > segment.size
    return cut


def doubled_ranks(processes: Iterable[ProcessInfo]) -> list[str]:
    """Ranks that more than one recording process claims, one sentence each."""
    recording = [process for process in processes if process.records]
    claims = Counter(process.rank for process in recording)
    return [
        f"rank {rank} is claimed by {count} processes (pid {_pids(recording, rank)}); they are kept apart"
        for rank, count in claims.items()
        if count > 1
    ]


def _pids(processes: Sequence[ProcessInfo], rank: int) -> str:
    return ", ".join(str(process.pid) for process in processes if process.rank == rank)
