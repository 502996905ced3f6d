"""The report of blame: the comparison's, led by what is at fault, with each module's own error."""

from __future__ import annotations

from collections.abc import Iterable

from twinrun.comparison.picture import Pictures
from twinrun.comparison.result import Result, Row
from twinrun.diagnosis.finding import Finding, Part, Proof, Shadow, Suspect
from twinrun.report.composition import compose, privacy_of
from twinrun.report.document import Document, Isolated, Listed, Section
from twinrun.report.dots import Key
from twinrun.report.figures import counted, figure, safe
from twinrun.report.page import Field, Tone
from twinrun.report.privacy import Privacy

_WORDS: dict[str, tuple[str, Tone]] = {
    "clean": ("NO FAULT FOUND", "good"), "blamed": ("BLAME", "bad"), "undecided": ("UNDECIDED", "unsure"),
    "inputs differ": ("INPUTS DIFFER", "bad"), "nothing": ("NOTHING TO BLAME", "unsure"),
}  # fmt: skip
_HEALING: dict[str, Tone] = {"healed": "good", "partly": "unsure", "not healed": "bad", "not run": "plain"}  # fmt: skip
_STATES: dict[str, Tone] = {
    "clean": "good", "undecided": "unsure", "rounds elsewhere": "unsure", "differs": "bad", "unknown": "plain",
}  # fmt: skip


def blamed(result: Result, finding: Finding, pictures: Pictures | None, paths: bool) -> Document:
    """The document of a comparison and of what blame made of it."""
    privacy = privacy_of(result, paths)
    held = compose(result, pictures, privacy, isolated(finding.parts))
    at = {row.name: row.position for row in reversed(result.rows)}
    lead = _lead(finding, at, privacy)
    others = [_suspect(one, at, privacy) for one in finding.suspects[1:]]
    lists = (
        _inputs(finding, at, privacy),
        _modules(finding, at, privacy),
        _passes(finding, privacy),
    )
    advice = finding.advice or result.advice
    return Document(
        title=safe(" ".join((lead.words.capitalize(), *lead.parts[:1]))),
        tone=lead.tone,
        sections=(lead, *others, *held.sections),
        closing=held.closing,
        next=tuple(map(privacy.advice, advice)),
        counts=held.counts,
        points=held.points,
        runs=held.runs,
        lists=(*(one for one in lists if one.rows), *held.lists),
        notes=(*map(privacy.text, finding.notes), *held.notes),
    )


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
        found[row.step, row.name, row.occurrence] = (own, tuple(part_fields(part)))
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


def _lead(finding: Finding, at: dict[str, int], privacy: Privacy) -> Section:
    words, tone = _WORDS[finding.outcome]
    if finding.suspects:
        first = _suspect(finding.suspects[0], at, privacy)
        more = [f"{counted(len(finding.suspects) - 1, 'more fault')}"] if len(finding.suspects) > 1 else []  # fmt: skip
        fields = first.fields
        if len(finding.suspects) > 1 and finding.proof.text:
            fields = (*fields, _proof("together", finding.proof, privacy))
        only_rounding = all(one.fault == "rounding" for one in finding.suspects)
        return Section(words, (*first.parts, *more), "unsure" if only_rounding else tone, fields, first.position)  # fmt: skip
    if finding.roots:
        row = finding.roots[0]
        told = Field.of("inputs", f"{counted(len(finding.roots), 'input')} of the outermost module already differ: nothing is blamed", tone="bad")  # fmt: skip
        return Section(words, (safe(row.name), f"step {row.step}"), tone, (told,), at.get(row.name, 0))  # fmt: skip
    clean = [part for part in finding.parts if part.state == "clean"]
    told = Field.of("modules", f"{counted(len(finding.parts), 'module')} looked at, {len(clean)} add no more than rounding")  # fmt: skip
    return Section(words, (), tone, (told,) if finding.parts else ())


def _suspect(one: Suspect, at: dict[str, int], privacy: Privacy) -> Section:
    fields = [
        Field.of("fault", ", ".join(filter(None, (one.fault, privacy.text(one.why)))), tone="bad")
    ]
    if one.part is not None:
        fields += part_fields(one.part)
    if one.operator is not None:
        fields.append(Field.of("inside", safe(f"{one.operator.name}: {one.operator.text}")))
    if one.hint is not None:
        fields.append(Field.of("hint", privacy.text(one.hint.text)))
    fields.append(_proof("proof", one.proof, privacy))
    name = safe(one.module or one.name)
    rest = [safe(one.module_class)] if one.module_class else []
    rest += [safe(one.name)] if one.name != name else []
    return Section("BLAME", (name, *rest), "unsure" if one.fault == "rounding" else "bad", tuple(fields), at.get(one.name, 0))  # fmt: skip


def _proof(label: str, proof: Proof, privacy: Privacy) -> Field:
    figures = ""
    if proof.before is not None and proof.after is not None:
        figures = f"{safe(proof.output)} from {figure(proof.before)} to {figure(proof.after)}"
        figures += (
            f", {figure(proof.ratio)} x what rounding allows" if proof.ratio is not None else ""
        )
    told = filter(None, (proof.state, privacy.text(proof.text)))
    return Field.of(label, ": ".join(told), *filter(None, (figures,)), tone=_HEALING[proof.state])


def _inputs(finding: Finding, at: dict[str, int], privacy: Privacy) -> Listed:
    rows = tuple((str(row.step), safe(row.name), row.verdict, _size(row)) for row in finding.roots)
    positions = tuple(at.get(row.name, 0) for row in finding.roots)
    note = (
        "Inputs of the outermost module that differ already: the programs were not given the same."
    )
    return Listed("Inputs that differ", ("step", "point", "verdict", "relative L2"), rows, positions, note)  # fmt: skip


def _modules(finding: Finding, at: dict[str, int], privacy: Privacy) -> Listed:
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
        positions.append(at.get(row.name, 0) if row else 0)
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
