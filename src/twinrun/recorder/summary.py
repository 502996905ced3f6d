"""The lines that ``twinrun run`` ends with: what was recorded, by whom, and what was not."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinrun.recorder.reached import Reached

_LISTED = 8
_COMMAND = 100


def summary(
    out: Path,
    processes: Sequence[Reached],
    notes: Sequence[Mapping[str, Any]],
    elapsed_s: float,
) -> Iterator[str]:
    """One line a fact, the first one first; ``notes`` are what processes told the parent."""
    yield _recorded(out, processes, elapsed_s)
    silent = _joined_silently(processes, notes)
    yield from _listed("process reached", "processes reached", [_who(one) for one in processes])
    yield from _listed(
        "other process imported torch and recorded nothing",
        "other processes imported torch and recorded nothing",
        silent,
    )
    yield from _listed(
        "Python process not reached", "Python processes not reached", _unreached(notes)
    )
    yield from _listed(
        "requested tap never fired", "requested taps never fired", _unfired(processes)
    )
    yield from _listed("problem", "problems", _told(processes, "problems"))
    yield from _listed("note", "notes", _told(processes, "notes"))


def _recorded(out: Path, processes: Sequence[Reached], elapsed_s: float) -> str:
    records = sum(one.records for one in processes)
    size = sum(one.bytes for one in processes)
    ranks = len({one.rank for one in processes})
    steps = max((one.steps for one in processes), default=0)
    seconds = max((one.seconds for one in processes), default=0.0)
    return (
        f"{records:,} record{_s(records)}, {_bytes(size)} in {_path(out)} "
        f"({ranks} rank{_s(ranks)}, {steps} step{_s(steps)}); "
        f"observing took {seconds:.2f} s of {elapsed_s:.1f} s"
    )


def _who(one: Reached) -> str:
    return f"rank {one.rank}  pid {one.pid}  {_command(one.argv)}"


def unended(one: Reached) -> list[str]:
    """What to say of a process that was killed, left through ``os._exit``, or still runs."""
    if one.ended:
        return []
    return [f"pid {one.pid} did not end in order: its last second may be missing"]


def _joined_silently(processes: Sequence[Reached], notes: Sequence[Mapping[str, Any]]) -> list[str]:
    told = {one.pid for one in processes}
    return [
        f"pid {note['pid']}  {_command(note['argv'])}"
        for note in notes
        if note["kind"] == "joined" and note["pid"] not in told
    ]


def _unreached(notes: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for note in notes:
        if note["kind"] == "unreachable":
            rows.append(f"{_command(note['command'])}: {note['reason']}")
        elif note["kind"] == "aside":
            rows.append(f"pid {note['pid']}  {_command(note['argv'])}: {note['reason']}")
    return list(dict.fromkeys(rows))


def _unfired(processes: Sequence[Reached]) -> list[str]:
    """Taps that fired in no process of those that know them."""
    silent: dict[str, tuple[int, str]] = {}
    for one in processes:
        for row in one.unfired:
            silent.setdefault(row["tap"], (row["modules"], row["reason"]))
    return [
        f"{tap} ({reason}{f', {count} modules' if count > 1 else ''})"
        for tap, (count, reason) in silent.items()
        if all(any(row["tap"] == tap for row in one.unfired) for one in processes)
    ]


def _told(processes: Sequence[Reached], kind: str) -> list[str]:
    rows: dict[str, list[int]] = {}
    for one in processes:
        own: tuple[str, ...] = getattr(one, kind)
        for text in (*own, *(unended(one) if kind == "problems" else ())):
            rows.setdefault(text, []).append(one.rank)
    return [f"{text} (rank {', '.join(map(str, ranks))})" for text, ranks in rows.items()]


def _listed(one: str, several: str, rows: Sequence[str]) -> Iterator[str]:
    if not rows:
        return
    yield f"{len(rows)} {one if len(rows) == 1 else several}:"
    yield from (f"  {row}" for row in rows[:_LISTED])
    if len(rows) > _LISTED:
        yield f"  and {len(rows) - _LISTED} more"


def _command(argv: Sequence[str]) -> str:
    text = shlex.join(argv)
    return text if len(text) <= _COMMAND else f"{text[: _COMMAND - 3]}..."


def _path(path: Path) -> str:
    """Relative where that is shorter to type."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
