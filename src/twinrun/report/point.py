"""One compared point in full: how far, where worst, which layout, and what explains it."""

from __future__ import annotations

from twinrun.comparison.result import Extreme, Floor, Hint, Measures, Operand, Row
from twinrun.report.figures import amount, counted, element, figure, percent, ranks, shape
from twinrun.report.page import Field, Tone

TONES: dict[str, Tone] = {
    "equal": "good", "close": "good", "healed": "good", "allowed": "good",
    "undecided": "unsure", "differs": "bad", "unmatched": "bad", "unreadable": "bad",
}  # fmt: skip

_REASONS = {
    "nonfinite": "NaN or Inf on one side only",
    "layout": "the layouts of the two sides could not be brought together",
    "partial sum": "each rank holds an addend; nothing shows that their sum was ever taken",
    "no values": "a side kept statistics only",
    "one side only": "recorded on one side only",
    "unreadable": "the capture does not give its values back",
    "factor": "each element is within rounding, but all are larger or smaller alike",
    "tie": "a choice between scores that rounding cannot tell apart, or what comes at once from it",
    "after a tie": "computed from such a choice, and at most twice as far apart as that moved it",
}


def point_fields(row: Row) -> list[Field]:
    """Everything known about one row, the verdict first."""
    fields = [Field.of(row.verdict, *_verdict(row), tone=TONES[row.verdict])]
    if row.measures is not None:
        fields += _measured(row, row.measures)
    if row.floor is not None and row.floor.kind != "exact":
        fields.append(Field.of("allowed", _allowed(row.floor)))
    if row.baseline and row.target:
        fields.append(Field.of("layout", *_layout(row.baseline, row.target)))
    if row.inferred:
        fields.append(Field.of("inferred", row.inferred))
    if row.hint is not None:
        fields.append(Field.of("hint", _hint(row.hint)))
    fields += [Field.of("note", note) for note in row.notes]
    return fields


def distance(row: Row) -> str:
    """The relative L2 of a row in a word or two, or what stands in its place."""
    if row.measures is None:
        return row.reason or row.verdict
    if row.measures.bits_equal:
        return "equal bits"
    return figure(row.measures.relative_l2)


def _verdict(row: Row) -> list[str]:
    """How far apart, and where it is not the distance that decides, what does."""
    if row.verdict == "unmatched":
        return [_unmatched(row)]
    lines = [] if row.measures is None else [_distance(row, row.measures)]
    if row.baseline and row.target and row.reason in ("shape", "dtype"):
        lines.append(_disagreement(row.baseline, row.target, row.reason))
    elif row.reason:
        lines.append(_REASONS.get(row.reason, row.reason))
    return lines or ["no reason was recorded"]


def _unmatched(row: Row) -> str:
    here, there = ("baseline", "target") if row.target is None else ("target", "baseline")
    near = f"; the nearest name there is {row.nearest}" if row.nearest else ""
    return f"recorded in the {here} only, the {there} has no such point{near}"


def _disagreement(baseline: Operand, target: Operand, reason: str) -> str:
    if reason == "dtype":
        return f"dtypes differ: baseline {baseline.dtype}, target {target.dtype}"
    return f"shapes differ: baseline {shape(baseline.shape)}, target {shape(target.shape)}"


def _distance(row: Row, measures: Measures) -> str:
    of = f"{_share(measures)} of {counted(measures.elements, 'element')}"
    if measures.bits_equal:
        return f"all {counted(measures.elements, 'element')} have equal bits"
    if row.floor is None:
        return f"relative L2 {figure(measures.relative_l2)}, {of}"
    if row.floor.kind == "exact":
        return f"{of} differ (must be equal)"
    allowed = f"(allowed {figure(row.floor.l2)})"
    return f"relative L2 {figure(measures.relative_l2)} {allowed}, {of}"


def _allowed(floor: Floor) -> str:
    """Where the floor comes from and up to where a distance above it is undecided."""
    beyond = f"above {figure(floor.k, 3)} x that it differs" if floor.k > 1 else "above it differs"
    return f"{floor.kind} floor: {floor.why}; {beyond}"


def _share(measures: Measures) -> str:
    return percent(measures.share) if measures.differing else "none"


def _measured(row: Row, measures: Measures) -> list[Field]:
    fields = []
    if measures.max_abs is not None and not measures.bits_equal:
        fields.append(Field.of("worst", _extreme(measures.max_abs)))
    if row.floor is not None and measures.worst is not None and not measures.bits_equal:
        fields.append(Field.of("", _worst_of_row(row.floor.worst, measures.worst)))
    for word, (baseline, target) in (("NaN", measures.nan), ("Inf", measures.inf)):
        if baseline or target:
            one_sided = (
                f"{amount(baseline)} in the baseline only, {amount(target)} in the target only"
            )
            fields.append(Field.of(word, one_sided))
    return fields


def _extreme(worst: Extreme) -> str:
    values = f"baseline {element(worst.baseline)}   target {element(worst.target)}"
    return f"{shape(worst.index)}   {values}"


def _worst_of_row(allowed: float, worst: Extreme) -> str:
    told = f"largest against its row's RMS {figure(worst.value)} (allowed {figure(allowed)})"
    return f"{told} at {shape(worst.index)}"


def _layout(baseline: Operand, target: Operand) -> list[str]:
    return [f"baseline {_operand(baseline)}", f"target   {_operand(target)}"]


def _operand(side: Operand) -> str:
    told = [f"{shape(side.shape)} {side.dtype}", ranks(side.ranks) if side.ranks else "no rank"]
    told += [f"dims '{side.dims}'"] if side.dims else []
    told += [side.layout] if side.layout else []
    return ", ".join(told)


def _hint(hint: Hint) -> str:
    """The hypothesis, and what remains of the distance under it unless it says so itself."""
    if "relative L2" in hint.text:
        return hint.text
    return f"{hint.text} (relative L2 is then {figure(hint.residual)})"
