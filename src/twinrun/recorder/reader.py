"""Reading a capture: what was sealed, whatever happened to the run afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from twinrun.errors import CaptureError
from twinrun.recorder.loading import LoadedProcess, doubled_ranks, load_directory
from twinrun.recorder.mapping import Mappings
from twinrun.recorder.record import ProcessInfo, Record, RunInfo
from twinrun.recorder.rows import Row, Rows


class Capture:
    """An opened capture; ``open_capture`` makes it.

    ``path`` is the text it was opened by; ``records`` are in the order of each process, processes
    by rank.
    """

    def __init__(
        self,
        path: str,
        run: RunInfo,
        processes: tuple[ProcessInfo, ...],
        records: Sequence[Record],
        payloads: Sequence[Sequence[Path]],
    ) -> None:
        self.path = path
        self.run = run
        self.processes = processes
        self.records = records
        self._payloads = payloads
        self._mappings = Mappings()

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that makes it incomplete or doubtful, one sentence each."""
        return self.run.problems

    def tensor(self, record: Record) -> torch.Tensor:
        """The record's values: CPU tensor of its dtype and shape over a private mapping.

        CaptureError where it has no payload or the file no longer holds it. The tensor may be used
        after ``release`` and ``close``; its pages are then read again.
        """
        if not record.has_payload:
            why = record.tags.get("no_payload", "only statistics were recorded")
            raise CaptureError(f"{record.name!r} (rank {record.rank}) has no values: {why}")
        return self._mappings.tensor(self._payload(record), record)

    def release(self, record: Record) -> None:
        """Drop the mapping's pages of this record from memory."""
        if record.has_payload:
            self._mappings.release(self._payload(record), record)

    def close(self) -> None:
        """Drop every mapping."""
        self._mappings.close()

    def _payload(self, record: Record) -> Path:
        return self._payloads[record.process][record.segment]


def open_capture(path: str | os.PathLike[str]) -> Capture:
    """Open a run directory, or several node-local ones of one run: ``"a/runs/x,b/runs/x"``.

    CaptureError where one is missing, no capture, of a newer format, or damaged. A run that was
    killed or still goes on reads back what was sealed; ``problems`` says so.
    """
    text = os.fspath(path)
    parts = [text] if "," not in text or Path(text).exists() else text.split(",")
    rows = Rows()
    loaded = [load_directory(Path(part.strip()), rows) for part in parts]
    processes = [process for _, found in loaded for process in found]
    processes.sort(key=lambda process: (process.info.rank, process.info.host, process.info.pid))
    infos = tuple(process.info for process in processes)
    run = _merged([run for run, _ in loaded], doubled_ranks(infos))
    payloads = [process.payloads for process in processes]
    return Capture(text, run, infos, _records(processes), payloads)


def _merged(runs: Sequence[RunInfo], doubts: Sequence[str]) -> RunInfo:
    problems = [problem for run in runs for problem in run.problems]
    complete = all(run.complete for run in runs) and not doubts
    told = tuple(dict.fromkeys([*problems, *doubts]))
    return replace(runs[0], problems=told, complete=complete)


def _records(processes: Sequence[LoadedProcess]) -> list[Record]:
    """Records with their steps and occurrences, which no process could know while it ran."""
    marked = any(row.mark for process in processes for _, row in process.rows)
    records: list[Record] = []
    for index, process in enumerate(processes):
        seen: dict[tuple[int, str, bool], int] = {}
        # The rows are given up as the records are made: never both of a whole process.
        rows, process.rows = process.rows, []
        for segment, row in rows:
            step = row.mark if marked else row.call
            key = (step, row.head.name, row.head.recompute)
            occurrence = seen[key] = seen.get(key, -1) + 1
            records.append(_record(index, process.info, segment, row, step, occurrence))
    return records


def _record(
    process: int, info: ProcessInfo, segment: int, row: Row, step: int, occurrence: int
) -> Record:
    head = row.head
    # By position: half the time of names, for every record of a capture.
    return Record(
        process, row.number, info.rank, step, head.name, occurrence, head.kind, head.role,
        head.module, head.module_class, head.root, head.tags, head.dims, head.dims_source,
        head.mesh or info.mesh, head.dtype, head.shape, head.device, head.nbytes, row.stats,
        row.offset is not None, row.sources, row.parents, head.reduction, head.recompute,
        row.begun, row.order, segment, row.offset or 0,
    )  # fmt: skip
