"""What a capture holds, as plain values: records, processes, the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Tag = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Record:
    """One observed tensor on one rank; ``docs/format.md`` gives each field's meaning."""

    process: int
    number: int
    rank: int
    step: int
    name: str
    occurrence: int
    kind: str
    role: str
    module: str
    module_class: str
    root: int
    tags: Mapping[str, Tag]
    dims: str | None
    dims_source: str
    mesh: Mapping[str, tuple[int, int]]
    dtype: str
    shape: tuple[int, ...]
    device: str
    nbytes: int
    stats: Mapping[str, float | int] | None
    has_payload: bool
    sources: tuple[int, ...]
    parents: tuple[int, ...]
    reduction: int
    recompute: bool
    begun: int
    order: int
    segment: int = -1
    offset: int = 0

    @property
    def point(self) -> tuple[int, str, int]:
        """The identity of the observation: (step, name, occurrence)."""
        return (self.step, self.name, self.occurrence)


@dataclass(frozen=True, slots=True)
class RootInfo:
    """One outermost module of a process: the label its children's names begin with, its class."""

    label: str
    module_class: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of the run, as its ``process.json`` and its sealed segments tell it.

    ``ended`` is False where the process was killed, left through ``os._exit``, or still runs.
    ``records`` and ``bytes`` count what can be read, ``seconds`` is the time spent observing.
    """

    directory: str
    pid: int
    rank: int
    world_size: int
    host: str
    argv: tuple[str, ...]
    python: str
    torch: str
    roots: tuple[RootInfo, ...]
    mesh: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    reports: Mapping[str, Any]
    records: int
    bytes: int
    seconds: float
    ended: bool

    @property
    def command(self) -> str:
        """The process's arguments as one line."""
        return " ".join(self.argv)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run as ``run.json`` tells it; ``complete`` is False where anything may be missing."""

    format: int
    twinrun: str
    origin: str
    command: tuple[str, ...]
    options: Mapping[str, Any]
    mesh: str
    created: str
    exit_code: int | None
    complete: bool
    problems: tuple[str, ...]
