"""A finding as a page: who is to blame, by how much, the proof, and what else was looked at."""

from __future__ import annotations

from collections.abc import Sequence

from twinrun.comparison.result import Row
from twinrun.diagnosis.finding import Finding, Part, Proof, Suspect
from twinrun.report.comparison import header
from twinrun.report.figures import counted, figure
from twinrun.report.page import Block, Field, Fields, Headline, Page, Table, Tone
from twinrun.report.point import distance

_MOST = 8
_TONES: dict[str, Tone] = {
    "healed": "good", "partly": "unsure", "not healed": "bad", "not run": "plain",
}  # fmt: skip
_FAULTS = {
    "module": "computes something else when it is given the same inputs",
    "own code": "its own code, between the modules that it calls, computes something else",
    "parameter": "its value is not the baseline's",
    "buffer": "its value is not the baseline's",
    "gradient": "what it is computed from agrees, this gradient does not",
    "rounding": "the same function, rounded in other places: no fault by itself",
}


def blame_page(finding: Finding) -> Page:
    """The page of ``finding``: the verdict first, then why, then what to do next."""
    page: list[Block | None] = [*header(finding.comparison), None]
    page += _verdict(finding)
    page += [None, Fields(tuple(_rest(finding)))]
    return page


def _verdict(finding: Finding) -> list[Block | None]:
    if finding.outcome == "inputs differ":
        return _inputs(finding.roots)
    if finding.outcome == "nothing":
        return [Headline("NOTHING COMPARED", ("no point is in both runs",), "bad")]
    if finding.outcome == "blamed":
        return _suspects(finding)
    clean = [one for one in finding.parts if one.state == "clean"]
    if finding.outcome == "clean":
        told = _no_blame(finding, clean)
        return [Headline("NOTHING TO BLAME", told, "good")]
    return [Headline("UNDECIDED", (_undecided(finding),), "unsure"), *_doubtful(finding.parts)]


def _no_blame(finding: Finding, clean: Sequence[Part]) -> tuple[str, ...]:
    rows = finding.comparison.rows
    if not finding.parts:
        return (f"{counted(len(rows), 'point')} agree, so no module was isolated",)
    return (
        f"{counted(len(clean), 'module')} looked at, each adds no more than rounding",
        f"the runs {finding.comparison.verdict}",
    )


def _inputs(rows: Sequence[Row]) -> list[Block | None]:
    fields = [Field.of(row.point, distance(row), tone="bad") for row in rows[:_MOST]]
    told = "the programs are not given the same inputs, so no module can be blamed"
    return [
        Headline("INPUTS DIFFER", (told,), "bad"),
        Fields(tuple(fields), indent=2),
    ]


def _suspects(finding: Finding) -> list[Block | None]:
    blocks: list[Block | None] = []
    for suspect in finding.suspects:
        rounding = suspect.fault == "rounding"
        words, tone = ("ROUNDS ELSEWHERE", "unsure") if rounding else ("BLAME", "bad")
        blocks.append(Headline(words, (_where(suspect),), tone))  # type: ignore[arg-type]
        blocks.append(Fields(tuple(_suspect(suspect)), indent=2))
    blocks.append(Fields((_proof(finding),), indent=2))
    return blocks


def _where(suspect: Suspect) -> str:
    if suspect.fault in ("parameter", "buffer", "gradient"):
        return suspect.name
    return suspect.module or f"{suspect.module_class} (the outermost module)"


def _suspect(suspect: Suspect) -> list[Field]:
    fields = [Field.of("what", _FAULTS[suspect.fault])]
    part = suspect.part
    if part is not None:
        fields.append(Field.of("adds", _adds(part)))
        fields.append(Field.of("inherits", _inherits(part)))
    elif suspect.row is not None:
        fields.append(Field.of("differs", distance(suspect.row)))
    if suspect.part is not None and suspect.name and suspect.fault == "own code":
        fields.append(Field.of("first at", suspect.name))
    if suspect.why:
        fields.append(Field.of("why", suspect.why))
    if suspect.operator is not None:
        fields.append(Field.of("inside", suspect.operator.text))
    if suspect.hint is not None:
        fields.append(Field.of("hint", suspect.hint.text))
    return fields


def _adds(part: Part) -> str:
    row = part.isolated
    if row is None or row.measures is None:
        return "another shape or kind of value" if row is not None else "not measured"
    told = f"relative L2 {figure(row.measures.relative_l2)} given the baseline's inputs"
    shadow = part.shadow
    if shadow is not None and shadow.times is not None:
        if shadow.own and row.measures.relative_l2 > shadow.own:
            told += f", {figure(row.measures.relative_l2 / shadow.own)} x its own rounding"
        return told
    if part.times is not None and row.floor is not None and row.floor.kind != "exact":
        told += f", {figure(part.times)} x what rounding explains"
    return told


def _inherits(part: Part) -> str:
    row = part.inherited
    if row is None:
        return "nothing recorded"
    if row.measures is not None and row.measures.bits_equal:
        return "nothing (its inputs had the same bits as the run went)"
    accumulated = part.accumulated
    told = f"relative L2 {distance(row)} at its inputs as the run went"
    if accumulated is not None and accumulated.measures is not None:
        told += f", {distance(accumulated)} at its output"
    return told


def _proof(finding: Finding) -> Field:
    return Field.of("proof", *proof_lines(finding.proof), tone=_TONES[finding.proof.state])


def proof_lines(proof: Proof) -> tuple[str, ...]:
    """The proof in words: what was grafted, what became of the output."""
    if proof.state == "not run":
        return (proof.text or "not run",)
    if proof.text and proof.before is None:
        return (f"{proof.state}: {proof.text}",)
    told = ", ".join(proof.points[:3])
    told += f" and {len(proof.points) - 3} more" if len(proof.points) > 3 else ""
    before = "" if proof.before is None else f" (relative L2 {figure(proof.before)} before"
    after = ")" if proof.after is None else f", {figure(proof.after)} now)"
    state = proof.state if proof.state != "partly" else f"partly healed: {proof.text}"
    line = (
        f"with {told} from the baseline, {proof.output} is {state}{before}{after if before else ''}"
    )
    return (line, proof.text) if proof.text and proof.state == "healed" else (line,)


def _undecided(finding: Finding) -> str:
    if not finding.parts:
        return "the runs do not agree, and no module could be isolated"
    if all(one.state == "clean" for one in finding.parts):
        return "the runs differ, yet each module adds no more than rounding given the same inputs"
    doubtful = [one for one in finding.parts if one.state in ("undecided", "unknown", "differs")]
    return f"{counted(len(doubtful), 'module')} could not be settled"


def _doubtful(parts: Sequence[Part]) -> list[Block | None]:
    rows = [
        (
            part.state,
            "" if part.isolated is None else distance(part.isolated),
            part.module,
            part.why,
        )
        for part in parts
        if part.state in ("undecided", "unknown", "differs")
    ]
    if not rows:
        return []
    return [Table(("state", "adds", "module", "why"), tuple(rows[:_MOST]), frozenset({1}))]


def _rest(finding: Finding) -> list[Field]:
    fields = []
    blamed = {one.module for one in finding.suspects}
    clean = [one for one in finding.parts if one.state == "clean" and one.module not in blamed]
    if clean and finding.suspects:
        worst = max((one.times or 0.0 for one in clean), default=0.0)
        told = f"{counted(len({one.module for one in clean}), 'other module')} add no more than rounding"
        fields.append(Field.of("clean", f"{told} (largest {figure(worst)} x)"))
    fields += [Field.of("note", note, tone="unsure") for note in finding.notes]
    seconds = sum(one.seconds for one in finding.passes)
    fields.append(Field.of("passes", f"{len(finding.passes)} in {seconds:.0f} s"))
    if finding.advice:
        fields.append(Field("next", finding.advice, verbatim=True))
    return fields
