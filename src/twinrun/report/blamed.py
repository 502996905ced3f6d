"""The report of blame: the comparison's, led by what is at fault, with each module's own error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from twinrun.comparison.picture import Pictures
from twinrun.comparison.result import Result, Row
from twinrun.diagnosis.finding import Finding, Part, Shadow
from twinrun.report.blame import blame_page
from twinrun.report.composition import compose, privacy_of
from twinrun.report.document import Document, Isolated, Listed, Section
from twinrun.report.dots import Key
from twinrun.report.figures import figure, safe
from twinrun.report.opening import opening
from twinrun.report.page import Field, Tone
from twinrun.report.privacy import Privacy

_STATES: dict[str, Tone] = {
    "clean": "good", "undecided": "unsure", "rounds elsewhere": "unsure", "differs": "bad", "unknown": "plain",
}  # fmt: skip


def blamed(result: Result, finding: Finding, pictures: Pictures | None, paths: bool) -> Document:
    """The document of a comparison and of what blame made of it."""
    privacy = privacy_of(result, paths)
    held = compose(result, pictures, privacy, isolated(finding.parts))
    at = _Positions(result.rows)
    sections, closing = opening(blame_page(finding), privacy)
    if len(finding.suspects) > 1:  # the proof is of all of them together
        last = sections[-1]
        closing = (*last.fields[-1:], *closing)
        sections = (*sections[:-1], replace(last, fields=last.fields[:-1]))
    linked = _linked(sections, finding, at)
    lists = (_inputs(finding, at), _modules(finding, at, privacy), _passes(finding, privacy))
    return replace(
        held,
        title=safe(" ".join((linked[0].words.capitalize(), *linked[0].parts[:1]))),
        tone=linked[0].tone,
        sections=(*linked, *held.sections),
        closing=(*closing, *held.closing),
        next=tuple(map(privacy.advice, finding.advice or result.advice)),
        lists=(*(one for one in lists if one.rows), *held.lists),
        notes=(*map(privacy.text, finding.notes), *held.notes),
    )


class _Positions:
    """Where the rows of a comparison stand, by point, or by name at its first."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._points = {(row.step, row.name, row.occurrence): row.position for row in rows}
        self._names = {row.name: row.position for row in reversed(rows)}

    def of(self, row: Row) -> int:
        return self._points.get((row.step, row.name, row.occurrence), self.named(row.name))

    def named(self, name: str) -> int:
        return self._names.get(name, 0)


def _linked(sections: Sequence[Section], finding: Finding, at: _Positions) -> tuple[Section, ...]:
    """Each suspect's section with the point that shows it."""
    shown = []
    for one in finding.suspects:
        measured = (one.part.isolated, one.part.accumulated) if one.part else ()
        found = [at.of(row) for row in (*measured, one.row) if row is not None]
        shown.append(next(filter(None, (*found, at.named(one.name))), 0))
    shown += [0] * (len(sections) - len(shown))
    return tuple(replace(one, position=to) for one, to in zip(sections, shown, strict=False))


def isolated(parts: Iterable[Part]) -> dict[Key, tuple[Isolated, tuple[Field, ...]]]:
    """Each module's own error, by the point at which it was measured."""
    found: dict[Key, tuple[Isolated, tuple[Field, ...]]] = {}
    for part in parts:
        row = part.isolated or part.accumulated
        if row is None:
            continue
        measures = part.isolated.measures if part.isolated else None
        allowed = part.isolated.floor.l2 if part.isolated and part.isolated.floor else None
        own = Isolated(measures.relative_l2 if measures else None, allowed, part.state)
        key = (row.step, row.name, row.occurrence)
        # A module and its own code may have been measured at one point: the larger error is shown.
        if key not in found or (own.error or 0.0) > (found[key][0].error or 0.0):
            found[key] = (own, tuple(part_fields(part)))
    return found


def part_fields(part: Part) -> list[Field]:
    """What one module adds, what it inherits, and what its shadow says."""
    tone = _STATES[part.state]
    fields = [Field.of("adds", *filter(None, (_adds(part), part.why)), tone=tone)]
    if part.inherited is not None:
        fields.append(Field.of("inherits", _inherits(part.inherited)))
    if part.shadow is not None:
        fields.append(Field.of("shadow", *_shadow(part.shadow)))
    return fields


def _adds(part: Part) -> str:
    measures = part.isolated.measures if part.isolated else None
    told: list[str] = [part.state]
    if measures is not None:
        told.append(f"relative L2 {figure(measures.relative_l2)} on the baseline's inputs")
    if part.times is not None:
        told.append(f"{figure(part.times)} x the rounding that is allowed")
    if part.how:
        told.append("its inputs were grafted" if part.how == "grafted" else "its inputs agreed bit for bit")  # fmt: skip
    return ", ".join(told)


def _inherits(row: Row) -> str:
    if row.measures is None or row.measures.bits_equal:
        return f"nothing: {row.name} is {row.verdict}"
    return f"{row.name} is {row.verdict} (relative L2 {figure(row.measures.relative_l2)})"


def _shadow(shadow: Shadow) -> list[str]:
    told = [
        f"{name} {figure(value)}"
        for name, value in (("baseline", shadow.baseline), ("target", shadow.target))
        if value is not None
    ]
    lines = [f"beside the same module in {shadow.precision}: {', '.join(told) or 'not run'}"]
    if shadow.apart is not None:
        allowed = f" (allowed {figure(shadow.allowed)})" if shadow.allowed is not None else ""
        lines.append(f"the two shadows lie {figure(shadow.apart)} apart{allowed}")
    return lines


def _inputs(finding: Finding, at: _Positions) -> Listed:
    rows = tuple((str(row.step), safe(row.name), row.verdict, _size(row)) for row in finding.roots)
    positions = tuple(at.of(row) for row in finding.roots)
    note = (
        "Inputs of the outermost module that differ already: the programs were not given the same."
    )
    return Listed("Inputs that differ", ("step", "point", "verdict", "relative L2"), rows, positions, note)  # fmt: skip


def _modules(finding: Finding, at: _Positions, privacy: Privacy) -> Listed:
    header = (
        "module",
        "class",
        "own error",
        "x rounding",
        "isolated",
        "as it went",
        "point",
        "why",
    )
    rows = []
    positions = []
    for part in finding.parts:
        row = part.isolated or part.accumulated
        rows.append((
            safe(part.module) or "(root)", safe(part.module_class), part.state,
            "" if part.times is None else figure(part.times), _size(part.isolated), _size(part.accumulated),
            safe(row.name) if row else "", privacy.text(part.why),
        ))  # fmt: skip
        positions.append(at.of(row) if row else 0)
    note = "Each module answers for itself: isolated is its output when it is given the baseline's inputs."
    return Listed("Modules", header, tuple(rows), tuple(positions), note)


def _passes(finding: Finding, privacy: Privacy) -> Listed:
    rows = tuple(
        (str(one.number), one.side, privacy.text(one.purpose), f"{one.seconds:.1f} s", str(one.exit_code), privacy.command(one.command))
        for one in finding.passes
    )  # fmt: skip
    header = ("run", "side", "purpose", "took", "exit", "command")
    return Listed("Runs that blame made", header, rows, (), "In order; each was named before it began.")  # fmt: skip


def _size(row: Row | None) -> str:
    if row is None:
        return ""
    return row.reason or row.verdict if row.measures is None else figure(row.measures.relative_l2)
