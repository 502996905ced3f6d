"""Examines one pair of points: layouts, numbers, verdict, broken replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from twinrun.comparison.alignment import Held, Misfit, Side, align
from twinrun.comparison.infer import infer
from twinrun.comparison.inference import NoFit
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.logical import Logical, of_tensor
from twinrun.comparison.matched import matched
from twinrun.comparison.measure import Assessed, Ruler, worst_of
from twinrun.comparison.outcome import Broken, Outcome
from twinrun.comparison.pairing import Pair
from twinrun.comparison.points import Point, Points
from twinrun.comparison.result import Hint, Operand
from twinrun.comparison.rules import Rule
from twinrun.comparison.statistics import judge_statistics
from twinrun.comparison.verdict import Judgement
from twinrun.errors import TwinrunError
from twinrun.numerics.dtypes import format_of


@dataclass(frozen=True)
class Examiner:
    """Both runs and what is known about layouts; `examine` looks at one pair."""

    baseline: Points
    target: Points
    layouts: Layouts

    def examine(self, pair: Pair, ruler: Ruler) -> Outcome:
        """Everything that the pair's own tensors say. Drops their mappings when done."""
        outcome = Outcome(pair, self.baseline.first(pair.baseline[0]), "unreadable")
        sides = ([self._held(p, self.baseline) for p in pair.baseline],
                 [self._held(p, self.target) for p in pair.target])  # fmt: skip
        outcome.baseline, outcome.target = (_operand(held[0]) for held in sides)
        try:
            self._fill(outcome, sides, pair.rule, ruler)
        except Misfit as misfit:
            outcome.measured, outcome.reason = misfit.measured, misfit.reason
            outcome.notes += (misfit.text,)
        except TwinrunError as error:
            outcome.measured, outcome.reason = "unreadable", "unreadable"
            outcome.notes += (" - ".join(filter(None, (error.summary, error.seen))),)
        finally:
            for held in (*sides[0], *sides[1]):
                held.release()
        return outcome

    def _held(self, point: Point, points: Points) -> Held:
        return Held(points.view, points.records(point), self.layouts)

    def _fill(
        self,
        outcome: Outcome,
        sides: tuple[list[Held], list[Held]],
        rule: Rule | None,
        ruler: Ruler,
    ) -> None:
        lacking = [r for side in sides for held in side for r in held.records if not r.has_payload]
        if lacking:
            _by_statistics(outcome, sides, rule, ruler)
            return
        if rule is not None and not rule.renames:
            self._mapped(outcome, sides, rule, ruler)
            return
        one, two = align(sides[0][0], sides[1][0])
        outcome.baseline, outcome.target = one.operand(), two.operand()
        outcome.inferred = _inferred_text(one, two)
        outcome.broken = _broken(one, two)
        outcome.floor = ruler.nominal(one.groups[0], two.groups[0])
        pairs = _paired_groups(one, two)
        assessed = [ruler.assess(a, b) for a, b in pairs]
        _note(outcome, assessed[worst_of(assessed)])
        for at, _, b in two.alternatives():
            if at < len(pairs):
                assessed.append(ruler.assess(*_facing(one, two, one.groups[at], b)))
        for at, _, a in one.alternatives():
            if at < len(pairs):
                assessed.append(ruler.assess(*_facing(one, two, a, two.groups[at])))
        _take(outcome, assessed[worst_of(assessed)])
        _hold_back(outcome, one, two)
        if one.sums or two.sums:
            _try_sums(outcome, one, two, ruler)

    def _mapped(
        self, outcome: Outcome, sides: tuple[list[Held], list[Held]], rule: Rule, ruler: Ruler
    ) -> None:
        one, two = _joined(sides[0], rule, True), _joined(sides[1], rule, False)
        if isinstance(two, Logical) and not isinstance(one, Logical):
            one = _inferred_single(one, two.shape)
        if isinstance(one, Logical) and not isinstance(two, Logical):
            two = _inferred_single(two, one.shape)
        if not isinstance(one, Logical) or not isinstance(two, Logical):
            raise Misfit("unreadable", "layout", f"{rule}: no layout is known on either side")
        assessed = ruler.assess(*_same_shape(one, two))
        _note(outcome, assessed)
        _take(outcome, assessed)


def _operand(held: Held) -> Operand:
    record = held.first
    ranks = tuple(one.rank for one in held.records)
    return Operand(
        record.name, record.shape, record.dtype, record.dims or "", record.dims_source, ranks
    )


def _paired_groups(one: Side, two: Side) -> list[tuple[Logical, Logical]]:
    """Sample groups side by side, as far as both runs have them."""
    return [_facing(one, two, a, b) for a, b in zip(one.groups, two.groups, strict=False)]


def _facing(one: Side, two: Side, a: Logical, b: Logical) -> tuple[Logical, Logical]:
    """Two groups seen in one order of dims, where both sides' dims are stated."""
    if one.inferred or two.inferred:
        return _same_shape(a, b)
    return _same_shape(*matched(a, one.dims, b, two.dims))


def _hold_back(outcome: Outcome, one: Side, two: Side) -> None:
    """Samples that only one run has were held against nothing: such a point cannot agree."""
    counts = len(one.groups), len(two.groups)
    if counts[0] == counts[1]:
        return
    outcome.notes += (
        f"{counts[0]} data groups against {counts[1]}: only the first {min(counts)} compared",
    )
    if outcome.measured in ("equal", "close"):
        outcome.measured, outcome.reason = "undecided", "layout"


def _same_shape(a: Logical, b: Logical) -> tuple[Logical, Logical]:
    if a.shape != b.shape:
        raise Misfit("differs", "shape", f"shape {list(a.shape)} against {list(b.shape)}")
    return a, b


def _take(outcome: Outcome, found: Assessed) -> None:
    said: Judgement = found.judgement
    outcome.measured, outcome.reason, outcome.ratio = said.measured, said.reason, said.ratio
    outcome.measures, outcome.floor = found.measures, found.floor
    kinds = {operand.dtype for operand in (outcome.baseline, outcome.target) if operand}
    if len(kinds) == 2:
        outcome.notes += (f"dtypes {' and '.join(sorted(kinds))}: judged by the coarser",)
        outcome.reason = outcome.reason or ("dtype" if said.measured == "differs" else "")


def _note(outcome: Outcome, found: Assessed) -> None:
    outcome.nans, outcome.nonfinite = found.distance.nans, found.distance.nonfinite
    outcome.one_sided = found.distance.one_sided


def _inferred_text(one: Side, two: Side) -> str:
    told = [
        f"{name} {side.dims} ({side.why})"
        for name, side in (("baseline", one), ("target", two))
        if side.inferred
    ]
    return "; ".join(told)


def _broken(one: Side, two: Side) -> tuple[Broken, ...]:
    return tuple(
        Broken(name, side.differences)
        for name, side in (("baseline", one), ("target", two))
        if side.differences
    )


def _try_sums(outcome: Outcome, one: Side, two: Side, ruler: Ruler) -> None:
    """A pending sum that would make the pair agree: remembered, with the difference kept as it is."""
    for name, side, other in (("baseline", one, two), ("target", two, one)):
        for candidate in side.sums:
            pairs = list(zip(side.summed(candidate), other.groups, strict=False))
            if any(a.shape != b.shape for a, b in pairs):
                continue
            found = [
                ruler.assess(b, a) if name == "target" else ruler.assess(a, b) for a, b in pairs
            ]
            worst = found[worst_of(found)]
            if worst.judgement.measured in ("equal", "close"):
                axes = "+".join(candidate.dims.partial) or "world"
                residual = worst.distance.relative_l2
                text = (
                    f"the sum of the {name}'s ranks over {axes} equals the other run "
                    f"(relative L2 {residual:.1e}): an all-reduce over {axes} is missing after this point"
                )
                outcome.summed = Hint("partial sum", text, residual)
                outcome.inferred = f"{name} {candidate.dims_text} (pending sum over {axes})"
                outcome.broken = tuple(b for b in outcome.broken if b.side != name)
                laid = replace(side.operand(), dims=candidate.dims_text, layout="inferred")
                if name == "baseline":
                    outcome.baseline = laid
                else:
                    outcome.target = laid
                return


def _by_statistics(
    outcome: Outcome, sides: tuple[list[Held], list[Held]], rule: Rule | None, ruler: Ruler
) -> None:
    records = [[r for held in side for r in held.records] for side in sides]
    ranks = [[r.rank for r in side] for side in records]
    if any(r.stats is None for side in records for r in side):
        reason = next((str(r.tags["no_payload"]) for side in records for r in side if "no_payload" in r.tags), "")  # fmt: skip
        told = reason or "one run holds values, the other statistics: record both alike"
        raise Misfit("unreadable", "no values", told)
    if (rule is not None and not rule.renames) or (ranks[0] != ranks[1] and len(ranks[0]) != 1):
        raise Misfit("unreadable", "no values", "statistics of shards cannot be assembled")
    firsts = records[0] if len(records[0]) == len(records[1]) else records[0] * len(records[1])
    if any(a.shape != b.shape for a, b in zip(firsts, records[1], strict=True)):
        raise Misfit("differs", "shape", "statistics of tensors of other shapes")
    found = [judge_statistics(a, b, ruler) for a, b in zip(firsts, records[1], strict=True)]
    worst = max(found, key=lambda one: one[1])
    outcome.measured, outcome.ratio, outcome.floor, outcome.reason, notes = worst
    outcome.notes += notes


def _joined(helds: Sequence[Held], rule: Rule, baseline: bool) -> Logical | Held:
    """One side of a rule as one tensor; the one Held whose layout the other side's shape must tell."""
    stated = [held.stated() for held in helds]
    entry = rule.entry
    steps = entry.baseline_steps if baseline else entry.target_steps
    if len(helds) == 1 and stated[0] is None and not steps:
        return helds[0]
    tensors = []
    for held, side in zip(helds, stated, strict=True):
        if side is None:
            text = (
                f"{held.first.name} lies on {len(held.records)} ranks: give its dims with --layouts"
            )
            raise Misfit("unreadable", "layout", text)
        if len(side.groups) != 1:
            raise Misfit("unreadable", "layout", f"{held.first.name} holds several data groups")
        tensors.append(side.groups[0].whole())
    try:
        made = rule.join(tensors, baseline=baseline)
    except ValueError as error:
        raise Misfit("unreadable", "map", str(error)) from error
    names = [held.first.dtype for held in helds] + [step.cast for step in steps if step.cast]
    return of_tensor(made, max(names, key=lambda name: format_of(name).roundoff))


def _inferred_single(held: Logical | Held, shape: tuple[int, ...]) -> Logical:
    """The only member of a rule's side, laid out by the shape that the rule makes of the other."""
    assert isinstance(held, Held)
    found = infer(held.shards, shape, data_axes=held.data_axes)
    if isinstance(found, NoFit) or found.differences:
        reason = found.reason if isinstance(found, NoFit) else "its ranks hold different bits"
        raise Misfit("differs", "layout", f"{held.first.name}: {reason}")
    return Side(held, found.placement, "inferred", found.reason).groups[0]
