"""The first operator in which two runs of one module part, told in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinrun.comparison.result import Row
from twinrun.comparison.view import View
from twinrun.diagnosis.operator_file import Sequence as Listed
from twinrun.diagnosis.sequence_alignment import align, likeness
from twinrun.diagnosis.sequence_calls import call_in_question
from twinrun.diagnosis.sequence_explanation import (
    Explanation,
    Kind,
    explain,
    explain_end,
    explain_replaced,
)
from twinrun.diagnosis.sequence_values import Values

LEAST_LIKENESS = 0.5
"""Below this share of paired operators the two are different implementations: nothing is claimed."""


@dataclass(frozen=True, slots=True)
class OperatorDifference:
    """``operator`` (aten's name) is number ``index`` of the target's sequence, or of the baseline's where
    the target lacks it. ``kind``: an ``argument`` or input is another, the ``order`` is, it is
    ``missing`` or ``extra`` in the target, or its ``value`` differs though all of that is the same.
    ``text`` is a sentence without a stop.
    """

    module: str
    operator: str
    index: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Unsettled:
    """No operator can be named, and why."""

    reason: str


def first_difference(
    baseline: View, target: View, module: str, rows: Sequence[Row]
) -> OperatorDifference | None:
    """The operator of ``module`` in which two captures part; None where none can be named.

    ``rows``: what compare says of its ``<module>:op.*`` records. Both captures were made with
    ``--operators``, the target's with the baseline's inputs, or with inputs that agree. CaptureError
    where a file is damaged.
    """
    found = difference_of(baseline, target, module, rows)
    return found if isinstance(found, OperatorDifference) else None


def difference_of(
    baseline: View, target: View, module: str, rows: Sequence[Row]
) -> OperatorDifference | Unsettled:
    """The same with the reason where nothing can be named."""
    calls = call_in_question(baseline, target, module, rows)
    if calls is None:
        return Unsettled("one of the runs did not list this module's operators")
    one, two = calls.baseline, calls.target
    if one.cut or two.cut:
        return Unsettled("the sequence is too long to be listed whole")
    replaced = explain_replaced(one.steps, two.steps)
    if replaced is not None:
        return _found(module, one, two, replaced)
    pairs = align(one.steps, two.steps)
    if likeness(pairs, one.steps, two.steps) < LEAST_LIKENESS:
        return Unsettled("the two are different implementations: too few operators have a partner")
    values = Values(baseline, target, calls, pairs, rows)
    if values.end_alike():
        return Unsettled("what the two end with agrees")
    for at in values.parting():
        told = explain(one.steps, two.steps, pairs, at, values)
        if told is not None and told.kind == "value":
            # Its inputs agree within rounding. A difference may be drowned in them (scores beside a
            # mask of -3e38), so the way back goes on to what holds the same bits.
            deeper = explain(one.steps, two.steps, pairs, at, values.exactly)
            told = deeper if deeper is not None and deeper.kind != "value" else told
        if told is not None and (told.kind != "value" or values.differs(at)):
            return _found(module, one, two, told)
    ending = explain_end(one.steps, two.steps, pairs)
    if ending is not None:
        return _found(module, one, two, ending)
    return _by_rounding(module, one, two, pairs, values)


def _by_rounding(
    module: str, one: Listed, two: Listed, pairs: list[tuple[int, int]], values: Values
) -> OperatorDifference | Unsettled:
    """Nothing differs by more than rounding: a conversion elsewhere is all that may be told."""
    for at in values.unequal():
        told = explain(one.steps, two.steps, pairs, at, values, conversions=True)
        if told is not None:
            return _found(module, one, two, told)
    return Unsettled("no operator differs by more than rounding")


def _found(module: str, one: Listed, two: Listed, told: Explanation) -> OperatorDifference:
    steps = one.steps if told.in_baseline else two.steps
    return OperatorDifference(module, steps[told.index].name, told.index, told.kind, told.text)
