"""The first point that differs, where nothing can be decided any more, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from twinrun.comparison.result import Divergence, Invariant, Row, Side

LAST_AGREED = 3
# A shorter tail of undecided points is no trend.
_TAIL = 3


def first_divergence(rows: Sequence[Row]) -> Divergence | None:
    """The first row that differs, in order, with the last ones that agreed before it."""
    found = next((at for at, row in enumerate(rows) if row.verdict == "differs"), None)
    if found is None:
        return None
    agreed = [row for row in rows[:found] if row.agrees]
    return Divergence(rows[found], len(agreed), tuple(agreed[-LAST_AGREED:]))


def undecided_from(rows: Sequence[Row]) -> Row | None:
    """The first row of a tail in which every inexact pair is undecided."""
    tail: list[Row] = []
    for row in reversed(rows):
        if row.verdict in ("unmatched", "unreadable"):
            continue
        exact = row.floor is not None and row.floor.kind == "exact"
        if row.verdict != "undecided" and not (exact and row.agrees):
            break
        if row.verdict == "undecided":
            tail.append(row)
    return tail[-1] if len(tail) >= _TAIL else None


def advice(
    first: Divergence | None,
    undecided: bool,
    rows: Sequence[Row],
    invariants: Sequence[Invariant],
    sides: tuple[Side, Side],
) -> tuple[str, ...]:
    """What to do next: commands that can be pasted, or a sentence."""
    baseline, target = sides
    told = []
    if first is not None:
        shown = target if first.row.target is not None else baseline
        name = first.row.target.name if first.row.target is not None else first.row.name
        told.append(f"twinrun show {shlex.quote(shown.path)} {shlex.quote(name)}")
    if first is not None or undecided:
        told.append(f"twinrun blame {shlex.quote(baseline.path)} -- {target.command}".rstrip())
    if undecided:
        told.append(
            "record a second run that is known to be right and pass it with --noise: it measures "
            "how far two right runs lie apart"
        )
    if any(row.verdict == "unmatched" and row.nearest for row in rows):
        told.append(
            "name points that are called differently in a map: --map map.yaml (docs/map.md)"
        )
    if any(row.reason == "layout" and row.verdict != "healed" for row in rows):
        told.append("state layouts that cannot be inferred: --layouts layouts.yaml (docs/dims.md)")
    if any(one.kind == "replicas" for one in invariants):
        told.append("if ranks see different samples, name their axis when recording: --mesh dp=N")
    return tuple(told)
