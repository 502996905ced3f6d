"""``operators.jsonl``: the sequences of one process, one call of a module a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinrun.diagnosis.listing import MOST, Listing
from twinrun.errors import CaptureError
from twinrun.recorder.core import Recorder
from twinrun.recorder.record import ProcessInfo
from twinrun.recorder.rundir import PROCESSES
from twinrun.recorder.scene import OpenCall
from twinrun.recorder.untrusted import as_int, as_text, parse_object, read_bytes

NAME = "operators.jsonl"
LARGEST = 64 << 20
_MOST_PARTS = 256


class OperatorFile:
    """Appends to the process's file, up to ``LARGEST`` bytes; says so when that is reached."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._written: dict[Path, int] = {}

    def write(self, call: OpenCall, listing: Listing) -> None:
        """One call's sequence. OSError where the disk refuses."""
        recorder = self._recorder
        path = recorder.directory / NAME
        line = {
            "module": call.entry.module,
            "class": call.entry.class_name,
            "call": call.call,
            "mark": recorder.marks,
            "ops": listing.rows,
            "cut": listing.cut,
        }
        text = (json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n").encode()
        size = self._written.get(path, 0) + len(text)
        if size > LARGEST:
            recorder.note(f"{NAME} is full at {LARGEST >> 20} MiB; later calls are not in it")
            return
        with path.open("ab") as file:
            file.write(text)
        self._written[path] = size
        if listing.cut:
            recorder.note(
                f"{call.entry.module!r} executed {listing.cut} operators more than the {MOST} listed"
            )


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that an operator was given or gave: from where, and ``value`` of a constant."""

    shape: tuple[int, ...]
    dtype: str
    argument: str = ""
    origin: str = ""
    value: int | float | str | bool | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One operator of a sequence; ``times`` counts those of its name before it in the call."""

    name: str
    overload: str
    times: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    is_view: bool = False
    writes: tuple[str, ...] = ()

    def record(self, module: str, at: int = 0) -> str:
        """The name that its result number ``at`` was recorded by."""
        several = f".{at}" if len(self.outputs) > 1 else ""
        return f"{module}:op.{self.name}.{self.times}{several}"


@dataclass(frozen=True, slots=True)
class Sequence:
    """What one call executed; ``cut`` operators at its end are not in ``steps``."""

    module: str
    module_class: str
    call: int
    mark: int
    steps: tuple[Step, ...]
    cut: int


def sequences(run: str, process: ProcessInfo, module: str) -> Iterator[Sequence]:
    """The calls of ``module`` in the file of one process of the capture at ``run``, in order.

    ``run`` is the text that the capture was opened by. CaptureError where the file is no such file.
    """
    for path in _files(run, process.directory):
        data = read_bytes(path, LARGEST)
        for at, line in enumerate(data.split(b"\n")[:-1], 1):
            where = f"{path}:{at}"
            held = parse_object(line, where)
            if held.get("module") != module:
                continue
            try:
                yield _sequence(held)
            except (KeyError, TypeError, ValueError) as error:
                raise CaptureError(
                    f"{where} is no sequence of operators: {error}",
                    do="the file was changed or damaged (docs/format.md)",
                ) from None


def _files(run: str, directory: str) -> Iterator[Path]:
    parts = [run] if "," not in run or Path(run).exists() else run.split(",")
    for part in parts:
        path = Path(part.strip()) / PROCESSES / directory / NAME
        if path.is_file() and not path.is_symlink():
            yield path


def _sequence(held: dict[str, Any]) -> Sequence:
    rows = held["ops"]
    if type(rows) is not list or len(rows) > MOST or not all(map(_is_step, rows)):
        raise ValueError("ops is no list of operators")
    return Sequence(
        as_text(held["module"], 4096),
        as_text(held["class"]),
        as_int(held["call"]),
        as_int(held["mark"]),
        tuple(_step(row) for row in rows),
        as_int(held["cut"]),
    )


def _is_step(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("args"), dict)


def _step(row: dict[str, Any]) -> Step:
    return Step(
        as_text(row["op"], 200),
        as_text(row["overload"], 200),
        as_int(row["k"]),
        tuple(_tensor(one) for one in _few(row["in"])),
        tuple(_tensor(one) for one in _few(row["out"])),
        {as_text(name, 200): _scalar(value) for name, value in row["args"].items()},
        row.get("view") is True,
        tuple(as_text(one, 200) for one in _few(row.get("writes", []))),
    )


def _tensor(row: dict[str, Any]) -> Tensor:
    return Tensor(
        tuple(as_int(size) for size in _few(row["shape"])),
        as_text(row["dtype"], 40),
        as_text(row.get("arg", ""), 200),
        as_text(row.get("from", ""), 8192),
        _scalar(row.get("value")),
    )


def _scalar(value: Any) -> Any:
    if isinstance(value, list):
        return [_scalar(one) for one in _few(value)]
    if value is None or type(value) in (bool, float):
        return value
    return as_int(value, -(1 << 63)) if type(value) is int else as_text(value, 200)


def _few(value: Any) -> list[Any]:
    if type(value) is not list or len(value) > _MOST_PARTS:
        raise ValueError("a list is too long, or none")
    return value
