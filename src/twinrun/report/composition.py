"""Puts a report together from what a comparison found."""

from __future__ import annotations

from collections.abc import Mapping

from twinrun.comparison.picture import Pictures
from twinrun.comparison.result import VERDICTS, Result, Row, Side
from twinrun.report.comparison import comparison_page
from twinrun.report.document import Document, Isolated, Listed, Run, Section
from twinrun.report.dots import Key, dots
from twinrun.report.figures import amount, counted, figure, ranks, safe, size
from twinrun.report.opening import opening
from twinrun.report.page import Field
from twinrun.report.privacy import Privacy


def compared(result: Result, pictures: Pictures | None, paths: bool) -> Document:
    """The report of a comparison; without ``paths`` it holds no host names and no paths."""
    return compose(result, pictures, privacy_of(result, paths), {})


def compose(
    result: Result,
    pictures: Pictures | None,
    privacy: Privacy,
    isolated: Mapping[Key, tuple[Isolated, tuple[Field, ...]]],
) -> Document:
    """The document of ``result``, with each point's isolated error where that is known."""
    sections, closing = opening(comparison_page(result, top=0), privacy)
    at = {row.name: row.position for row in reversed(result.rows)}
    verdict, *others = [_about(one, result, at) for one in reversed(sections)]
    return Document(
        title=safe(" ".join((verdict.words.capitalize(), *verdict.parts[:1]))),
        tone=verdict.tone,
        sections=(verdict, *reversed(others)),
        closing=closing,
        next=tuple(map(privacy.advice, result.advice)),
        counts={word: result.counts.get(word, 0) for word in VERDICTS},
        points=tuple(dots(result, privacy, pictures, isolated)),
        runs=runs(result, privacy),
        lists=tuple(
            one for one in (_invariants(result, privacy), *_left_out(result, privacy)) if one.rows
        ),
        notes=tuple(map(privacy.text, _problems(result, privacy.shown))),
    )


def privacy_of(result: Result, paths: bool) -> Privacy:
    """What must not be told of the places and names of ``result``."""
    told = {name: value for name, value in result.options.items() if name != "skip_steps"}
    told |= {"target": result.target.path, "baseline": result.baseline.path}
    # Several captures are given with commas between them: each of them is a place.
    places = {
        part.strip(): name.upper()
        for name, value in told.items()
        for part in (*value.split(","), value)
    }
    names = {side.name for row in result.rows for side in (row.baseline, row.target) if side}
    return Privacy(paths, places, names | {row.name for row in result.rows})


def runs(result: Result, privacy: Privacy) -> tuple[Run, ...]:
    """Both runs: size, mesh, versions and command."""
    return (
        _run("baseline", result.baseline, privacy),
        _run("target", result.target, privacy),
    )


def _run(label: str, side: Side, privacy: Privacy) -> Run:
    fields = [Field.of("capture", safe(side.path))] if privacy.shown else []
    fields += [
        Field.of("ranks", ", ".join(filter(None, (counted(side.ranks, "rank"), safe(side.mesh))))),
        Field.of("records", f"{counted(side.records, 'record')}, {counted(side.steps, 'step')}, {size(side.nbytes)}"),
        Field.of("versions", ", ".join(f"{safe(k)} {safe(v)}" for k, v in side.versions.items())),
    ]  # fmt: skip
    if side.command:
        fields.append(Field("command", (privacy.command(side.command),), verbatim=True))
    if not side.complete:
        fields.append(Field.of("warning", "the capture is incomplete", tone="unsure"))
    return Run(label, tuple(fields))


def _about(section: Section, result: Result, at: Mapping[str, int]) -> Section:
    """The section led by the name of the point that it is about, if it is about one."""
    named = next((part for part in section.parts if part in at), None)
    if named is None:
        return section
    first = result.first.row if result.first else None
    position = first.position if first is not None and first.name == named else at[named]
    parts = (named, *(part for part in section.parts if part != named))
    return Section(section.words, parts, section.tone, section.fields, position)


def _invariants(result: Result, privacy: Privacy) -> Listed:
    at = {}
    for row in reversed(result.rows):
        at[row.step, row.name] = row.position
    broken = result.invariants
    rows = tuple(
        (one.side, one.kind, f"step {one.step}", safe(one.name), ranks(one.ranks) if one.ranks else "",
         "" if one.distance is None else figure(one.distance), privacy.text(one.text))
        for one in broken
    )  # fmt: skip
    header = ("side", "kind", "step", "point", "ranks", "largest difference", "finding")
    note = "What must hold inside one run and does not, seen without the other run."
    positions = tuple(at.get((one.step, one.name), 0) for one in broken)
    return Listed("Broken invariants", header, rows, positions, note)


def _left_out(result: Result, privacy: Privacy) -> tuple[Listed, Listed]:
    unmatched = [row for row in result.rows if row.verdict == "unmatched"]
    unreadable = [row for row in result.rows if row.verdict == "unreadable"]
    return (
        Listed(
            "Unmatched points",
            ("side", "step", "point", "nearest name on the other side"),
            tuple((_only(row), str(row.step), safe(row.name), safe(row.nearest)) for row in unmatched),
            tuple(row.position for row in unmatched),
            "Recorded in one run only. Names that differ are paired by a map (--map).",
        ),
        Listed(
            "Unreadable points",
            ("step", "point", "why"),
            tuple(
                (str(row.step), safe(row.name), privacy.text("; ".join((row.reason, *row.notes))))
                for row in unreadable
            ),
            tuple(row.position for row in unreadable),
            "Recorded, but the values cannot be held side by side.",
        ),
    )  # fmt: skip


def _only(row: Row) -> str:
    return "baseline" if row.target is None else "target"


def _problems(result: Result, paths: bool) -> list[str]:
    told = [f"{counted(len(result.rows), 'point')}, {amount(result.pairs)} held side by side"]
    for name, value in result.options.items():
        if value:
            told.append(f"{name}: {value if paths or name == 'skip_steps' else 'given'}")
    told += result.problems
    sides = (("baseline", result.baseline), ("target", result.target))
    own = [f"{label}: {problem}" for label, side in sides for problem in side.problems]
    told += [p for p in own if not any(p.split(": ", 1)[1] in said for said in result.problems)]
    return told
