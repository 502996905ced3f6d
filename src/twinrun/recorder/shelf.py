"""The sealed segments of one process directory: checked, listed, their index lines read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from twinrun.errors import CaptureError
from twinrun.recorder.rows import Row, Rows
from twinrun.recorder.untrusted import open_regular, read_bytes

_INDEX = re.compile(r"(\d{6,12})\.jsonl")
_PART = re.compile(r"\..*\.part")
_LARGEST_INDEX = 1 << 30


@dataclass(frozen=True, slots=True)
class Sealed:
    """A segment both of whose files are there; ``size`` is the payload file's, 0 where unreadable."""

    index: Path
    payload: Path
    size: int


def sealed_segments(directory: Path) -> tuple[list[Sealed], list[str]]:
    """The segments in their order, and what is wrong with the rest. CaptureError for links."""
    found: list[Sealed] = []
    problems: list[str] = []
    names = sorted(path.name for path in directory.iterdir())
    stems = [(int(match[1]), name) for name in names if (match := _INDEX.fullmatch(name))]
    for expected, (number, name) in enumerate(sorted(stems)):
        if number != expected and not problems:
            problems.append(f"{directory.name}: segment {expected:06d} is missing")
        segment = _sealed(directory / name, problems)
        if segment is not None:
            found.append(segment)
    if any(_PART.fullmatch(name) for name in names):
        problems.append(f"{directory.name}: a segment was never sealed; its records are lost")
    return found, problems


def _sealed(index: Path, problems: list[str]) -> Sealed | None:
    payload = index.with_suffix(".safetensors")
    if not os.path.lexists(payload):
        problems.append(
            f"{index.parent.name}: {index.name} has no segment beside it; it is ignored"
        )
        return None
    handle = open_regular(payload)
    try:
        size = os.fstat(handle).st_size
        header = int.from_bytes(os.pread(handle, 8, 0), "little") if size >= 8 else size
    finally:
        os.close(handle)
    if header > size - 8:
        problems.append(f"{index.parent.name}: {payload.name} is cut inside its header")
        size = 0
    return Sealed(index, payload, size)


def read_rows(segment: Sealed, rows: Rows, roots: int) -> Iterator[Row]:
    """The checked rows of a segment's index; CaptureError names the file and the line."""
    data = read_bytes(segment.index, _LARGEST_INDEX)
    if data and not data.endswith(b"\n"):
        raise CaptureError(
            f"{segment.index} is cut in its last line",
            do="copy the file again, or remove the segment's two files to read the rest",
        )
    end = 0
    for at, text in enumerate(data.split(b"\n")[:-1], 1):
        where = f"{segment.index}:{at}"
        try:
            row = rows.row(text, roots, where)
            end = _after(row, end)
        except (KeyError, ValueError) as error:
            what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise CaptureError(
                f"{where}: {what}",
                do="the file was changed or damaged (docs/format.md); remove the segment's two "
                "files to read the rest",
            ) from None
        yield row


def _after(row: Row, end: int) -> int:
    """Where this payload ends; ValueError where it begins inside the one before it."""
    if row.offset is None:
        return end
    if row.offset < end:
        raise ValueError(f"offset {row.offset} lies inside the payload that ends at {end}")
    return row.offset + row.head.nbytes
