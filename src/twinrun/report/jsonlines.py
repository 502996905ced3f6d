"""JSON lines: one object a line, each with its ``type``; the schema is docs/json.md."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from twinrun import __version__
from twinrun.comparison.result import Result
from twinrun.diagnosis.finding import Finding
from twinrun.recorder.record import ProcessInfo, Record, RunInfo
from twinrun.report.tensor import Seen

SCHEMA = 1
"""Raised when a field changes its meaning or goes; new fields and new types of line may come any time."""


def comparison_lines(result: Result) -> Iterator[str]:
    """The lines of a comparison: ``comparison``, ``invariant`` s, ``point`` s in order, ``summary``."""
    yield line("comparison", schema=SCHEMA, twinrun=__version__, baseline=result.baseline,
               target=result.target, options=result.options)  # fmt: skip
    for broken in result.invariants:
        yield line("invariant", **plain(broken))
    for row in result.rows:
        yield line("point", **plain(row))
    first, undecided = result.first, result.undecided_from
    yield line("summary", verdict=result.verdict, exit_code=result.exit_code,
               points=len(result.rows), pairs=result.pairs, counts=result.counts,
               first=first.row.position if first else None,
               agreed_before=first.agreed if first else None,
               undecided_from=undecided.position if undecided else None,
               advice=result.advice, problems=result.problems)  # fmt: skip


def blame_lines(finding: Finding) -> Iterator[str]:
    """The lines of a finding: ``blame``, ``pass`` es, ``part`` s in order, ``suspect`` s, ``verdict``."""
    compared = finding.comparison
    yield line("blame", schema=SCHEMA, twinrun=__version__, baseline=compared.baseline,
               target=compared.target, options=compared.options)  # fmt: skip
    for one in finding.passes:
        yield line("pass", **plain(one))
    for part in finding.parts:
        yield line("part", **plain(part))
    for suspect in finding.suspects:
        yield line("suspect", **plain(suspect))
    yield line("verdict", outcome=finding.outcome, exit_code=finding.exit_code,
               suspects=[s.module for s in finding.suspects], proof=finding.proof,
               roots=finding.roots, comparison=compared.verdict, notes=finding.notes,
               advice=finding.advice)  # fmt: skip


def capture_lines(
    path: str, run: RunInfo, processes: Iterable[ProcessInfo], records: Iterable[Record]
) -> Iterator[str]:
    """The lines of a listing: ``capture``, ``process`` es, ``record`` s as they were observed."""
    yield line("capture", schema=SCHEMA, path=path, **plain(run))
    for process in processes:
        yield line("process", **plain(process))
    for record in records:
        yield line("record", **plain(record))


def tensor_lines(seen: Iterable[Seen]) -> Iterator[str]:
    """One ``record`` line for each record of a point, with its ``statistics``."""
    for one in seen:
        yield line("record", **plain(one.record), statistics=one.statistics)


def line(type_: str, **values: Any) -> str:
    """One line of JSON that starts with its type. NaN and infinities become strings."""
    return json.dumps({"type": type_, **{k: plain(v) for k, v in values.items()}}, allow_nan=False)


def plain(value: Any) -> Any:
    """Dataclasses, mappings, tuples and scalars as what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value
