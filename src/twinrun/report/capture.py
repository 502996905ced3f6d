"""A capture as a page: the run, its processes, and every point it holds."""

from __future__ import annotations

from collections.abc import Sequence

from twinrun.recorder.record import ProcessInfo, RunInfo
from twinrun.report.figures import amount, counted, numbers, shape, size
from twinrun.report.listing import Entry
from twinrun.report.page import Block, Field, Fields, Headline, Page, Table


def capture_page(
    path: str, run: RunInfo, processes: Sequence[ProcessInfo], entries: Sequence[Entry], top: int
) -> Page:
    """The page of a capture; the list of points shows its first ``top`` entries, 0 for all."""
    page: list[Block | None] = [
        _run(path, run, processes, entries),
        Fields(tuple(_facts(run, processes))),
    ]
    page += [None, _processes(processes), None]
    if not entries:
        return [
            *page,
            Headline("NO RECORDS", ("nothing recorded fits what was asked for",), "unsure"),
        ]
    shown = entries[:top] if top else entries
    page.append(_points(shown))
    if len(shown) < len(entries):
        more = f"and {counted(len(entries) - len(shown), 'more point')} (--top 0 shows all)"
        page.append(Fields((Field("  " + more, ("",)),)))
    return page


def _run(
    path: str, run: RunInfo, processes: Sequence[ProcessInfo], entries: Sequence[Entry]
) -> Block:
    ranks = counted(len({process.rank for process in processes}), "rank")
    records = counted(sum(process.records for process in processes), "record")
    nbytes = size(sum(process.bytes for process in processes))
    mesh = _mesh(run, entries)
    return Headline("CAPTURE", (path, f"{ranks}, {mesh}" if mesh else ranks, records, nbytes))


def _mesh(run: RunInfo, entries: Sequence[Entry]) -> str:
    """The mesh that the run was told, else the axes that its records name."""
    axes = {axis: length for entry in entries for axis, length in entry.axes.items()}
    return run.mesh or " ".join(f"{axis}={length}" for axis, length in axes.items())


def _facts(run: RunInfo, processes: Sequence[ProcessInfo]) -> list[Field]:
    told = [Field("command", (" ".join(run.command),), verbatim=True)] if run.command else []
    if run.created:
        told.append(Field.of("started", run.created))
    versions = sorted({f"torch {process.torch}, python {process.python}" for process in processes})
    told.append(Field.of("versions", f"twinrun {run.twinrun}", *versions))
    told.append(Field.of("options", _options(run)))
    if run.exit_code:
        told.append(Field.of("exit code", str(run.exit_code), tone="unsure"))
    if not run.complete:
        told.append(Field.of("warning", "the capture is incomplete", tone="unsure"))
    problems = [*run.problems, *(p for process in processes for p in process.problems)]
    told += [Field.of("warning", problem, tone="unsure") for problem in dict.fromkeys(problems)]
    notes = dict.fromkeys(note for process in processes for note in process.notes)
    return told + [Field.of("note", note) for note in notes]


def _options(run: RunInfo) -> str:
    told = [f"{key}={value}" for key, value in run.options.items() if value not in ("", False, 0)]
    return ", ".join(told) or "none"


def _processes(processes: Sequence[ProcessInfo]) -> Table:
    rows = tuple(
        (
            str(process.rank),
            str(process.pid),
            process.host,
            amount(process.records),
            size(process.bytes),
            f"{process.seconds:.2f} s",
            "yes" if process.ended else "no",
            process.command,
        )
        for process in processes
    )
    header = ("rank", "pid", "host", "records", "size", "observing", "ended", "process")
    return Table(header, rows, right=frozenset({0, 1, 3, 4, 5}))


def _points(entries: Sequence[Entry]) -> Table:
    rows = tuple(
        (
            numbers(entry.steps),
            numbers(entry.ranks),
            entry.kind,
            entry.dtype,
            shape(entry.shape),
            entry.dims,
            size(entry.nbytes),
            f"{entry.name}  (recomputed)" if entry.recompute else entry.name,
        )
        for entry in entries
    )
    header = ("step", "rank", "kind", "dtype", "shape", "dims", "size", "point")
    return Table(header, rows, right=frozenset({0, 1, 6}))
