"""What a run left behind, read without torch: its processes, how much they recorded, what went wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinrun.recorder.rundir import PROCESSES

_STEP = re.compile(rb'"call":(-?\d+),"mark":(\d+)')


@dataclass(slots=True)
class Reached:
    """One process that wrote down something, or at least that it was there."""

    pid: int
    rank: int
    argv: tuple[str, ...]
    seconds: float
    ended: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    unfired: tuple[dict[str, Any], ...]
    records: int = 0
    bytes: int = 0
    calls: set[int] = field(default_factory=set)
    marks: set[int] = field(default_factory=set)

    @property
    def steps(self) -> int:
        """How many steps its records belong to."""
        return len(self.marks) if self.marks - {0} else len(self.calls)


def processes_of(run: Path) -> Iterator[Reached]:
    """Every process of a run directory, by rank, then pid."""
    found = [_process(path.parent, path) for path in (run / PROCESSES).glob("*/process.json")]
    yield from sorted(found, key=lambda one: (one.rank, one.pid))


def _process(directory: Path, path: Path) -> Reached:
    held = json.loads(path.read_text(encoding="utf-8"))
    one = Reached(
        pid=held["pid"],
        rank=held["rank"],
        argv=tuple(held["argv"]),
        seconds=held["seconds"],
        ended=held["ended"],
        problems=tuple(held["problems"]),
        notes=tuple(held["notes"]),
        unfired=tuple(held["reports"].get("unfired", ())),
    )
    for index in sorted(directory.glob("*.jsonl")):
        _count(one, index)
    return one


def _count(one: Reached, index: Path) -> None:
    with index.open("rb") as lines:
        for line in lines:
            one.records += 1
            step = _STEP.search(line)
            if step is not None:
                one.calls.add(int(step[1]))
                one.marks.add(int(step[2]))
    payload = index.with_suffix(".safetensors")
    one.bytes += index.stat().st_size + (payload.stat().st_size if payload.exists() else 0)
