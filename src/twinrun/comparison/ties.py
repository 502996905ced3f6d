"""Choices that rounding tipped, and what follows from them: undecided instead of different.

A router takes the k largest of its scores. Where two of them lie closer than rounding, two right runs
choose otherwise in that row, and the row's result differs altogether. docs/verdicts.md has the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch

from twinrun.comparison.alignment import Misfit
from twinrun.comparison.choices import is_choice, tipped
from twinrun.comparison.flow import UNKNOWN
from twinrun.comparison.kin import Call, Kin, call_of
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.outcome import Outcome
from twinrun.comparison.outside import Both, outside
from twinrun.comparison.points import Points
from twinrun.comparison.reach import (
    NOWHERE,
    Reach,
    differs_by_distance,
    is_float,
    is_index,
    is_plain,
    reach_of,
)
from twinrun.errors import TwinrunError

TIE, AFTER = "tie", "after a tie"
# What a tie moved may move what is computed from it by so many times as much.
_GAIN = 2.0
_NOT_APART = ("equal", "close", "undecided")
_Rows = tuple[torch.Tensor, ...]


def settle_ties(outcomes: Sequence[Outcome], runs: tuple[Points, Points], layouts: Layouts) -> None:
    """Turn `differs` into `undecided` where a tie explains it; nothing else is touched.

    Reads choices, their scores and what was computed at once from them a second time, one pair
    at a time.
    """
    if any(differs_by_distance(one) and is_index(one) for one in outcomes):
        _Ties(outcomes, runs, layouts).settle()


class _Ties:
    """Goes through the points in order of execution and remembers what ties have reached.

    ``_chosen``: of tied indices, the rows that name other sets, for each data group. ``_behind`` and
    ``_called``: those rows for points, and for calls, whose result comes at once from such a choice.
    """

    def __init__(
        self, outcomes: Sequence[Outcome], runs: tuple[Points, Points], layouts: Layouts
    ) -> None:
        self._outcomes = outcomes
        self._runs = runs
        self._layouts = layouts
        self._kin = Kin(outcomes, runs)
        self._chosen: dict[int, _Rows] = {}
        self._behind: dict[int, tuple[_Rows, Call]] = {}
        self._called: dict[Call, tuple[_Rows, Call]] = {}
        self._touched: set[int] = set()
        self._shown = NOWHERE
        self._first_step: int | None = None

    def settle(self) -> None:
        """One point after the other; what came before the first tie stays as it is."""
        for outcome in self._outcomes:
            if not outcome.pair.baseline:
                continue
            with suppress(Misfit, TwinrunError):  # what cannot be read again keeps its verdict
                self._look(outcome)
            if self._reached(outcome):
                self._touched.add(id(outcome))
        for call in self._called:
            self._dispatch(call)

    def _look(self, outcome: Outcome) -> None:
        rows = self._rows_behind(outcome)
        if rows is not None and outcome.final in _NOT_APART:
            self._shown = self._shown.larger(reach_of(outcome))
        if not differs_by_distance(outcome) or self._repeats(outcome):
            return
        if is_index(outcome):
            self._choose(outcome)
        elif rows is not None:
            self._follow(outcome, *rows)
        elif is_float(outcome):
            self._go_on(outcome)

    def _choose(self, outcome: Outcome) -> None:
        """Indices that on both sides are the top of scores which do not differ."""
        siblings = self._kin.siblings(outcome)
        with self._both(outcome) as both:
            pairs = [(a.whole(), b.whole()) for a, b in both.groups]
            if not any(self._explains(one, pairs) for one in siblings):
                return
            found = [tipped(a, b) for a, b in pairs]
        sets, rows = tuple(one[0] for one in found), tuple(one[1] for one in found)
        if self._first_step is None:
            self._first_step = outcome.record.step
        self._chosen[id(outcome)] = sets
        told = f"{_counted(rows)} chose otherwise; their scores do not differ beyond rounding"
        self._excuse(outcome, TIE, told)
        for one in siblings:
            if differs_by_distance(one) and is_float(one):
                self._follow(one, rows, call_of(outcome))
        for one in self._kin.around(outcome):
            self._expect(one, sets, call_of(outcome))

    def _explains(self, scores: Outcome, indices: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
        if not (scores.final in _NOT_APART and is_float(scores) and is_plain(scores)):
            return False
        with self._both(scores) as both:
            return len(both.groups) == len(indices) and all(
                is_choice(index, values.whole())
                for pair, chosen in zip(both.groups, indices, strict=True)
                for values, index in zip(pair, chosen, strict=True)
            )

    def _expect(self, outcome: Outcome, rows: _Rows, call: Call) -> None:
        before = self._behind.get(id(outcome))
        if before is not None and [r.shape for r in before[0]] == [r.shape for r in rows]:
            rows = tuple(one | two for one, two in zip(before[0], rows, strict=True))
        self._behind[id(outcome)] = (rows, call)

    def _rows_behind(self, outcome: Outcome) -> tuple[_Rows, Call] | None:
        """The rows that a tie tipped, where this point comes at once from what it chose."""
        if outcome.record.role != "output" or not is_float(outcome):
            return None
        return self._behind.get(id(outcome)) or self._called.get(call_of(outcome))

    def _follow(self, outcome: Outcome, rows: _Rows, call: Call) -> None:
        """What comes at once from a choice: without the tipped rows it must not differ."""
        with self._both(outcome) as both:
            judged = outside(outcome, both, rows)
        if judged is None:
            return
        measured, rest = judged
        if measured == "differs" and not rest.within(self._moved(outcome, choice=call), _GAIN):
            return
        self._shown = self._shown.larger(reach_of(outcome))
        told = f"{_counted(rows)} come from another choice; the others alone are {measured}"
        self._excuse(outcome, TIE, told)

    def _repeats(self, outcome: Outcome) -> bool:
        """The very same value once more: what was said of it is said again."""
        for one in self._kin.same(outcome):
            if one.reason not in (TIE, AFTER) or reach_of(one) != reach_of(outcome):
                continue
            self._excuse(outcome, one.reason, f"the same value as {one.name}")
            if id(one) in self._chosen:
                self._chosen[id(outcome)] = self._chosen[id(one)]
                self._called[call_of(outcome)] = (self._chosen[id(one)], call_of(one))
            return True
        return False

    def _dispatch(self, call: Call) -> None:
        """Inside a module that was given the choice rows stand by expert, so that all of them may move.

        What it gave back tells: where that does not differ beside the tipped rows, nothing inside did.
        """
        outputs = self._kin.outputs(call)
        if not outputs or any(one.final not in _NOT_APART for one in outputs):
            return
        for one in self._kin.inside(call):
            moved = differs_by_distance(one) or (one.final == "differs" and one.reason == "shape")
            if moved and one.pair.target:
                self._excuse(
                    one, TIE, f"inside a module whose {outputs[0].name} differs by a tie only"
                )

    def _go_on(self, outcome: Outcome) -> None:
        """A later point: at most twice what a tie moved in what it was computed from."""
        moved, own = self._moved(outcome), reach_of(outcome)
        if self._reached(outcome) and own.within(moved, _GAIN) and own.within(self._shown, _GAIN):
            told = f"computed from what a tie moved by {moved.l2:.2g} (relative L2)"
            self._excuse(outcome, AFTER, told)

    def _moved(self, outcome: Outcome, choice: Call | None = None) -> Reach:
        """The largest distance among what it was computed from.

        ``choice``: a call whose outputs, and what follows at once from them, do not count.
        """
        found = NOWHERE if choice or not self._anywhere(outcome) else self._shown
        for one in self._kin.makers(outcome):
            counts = choice is None or (one.reason != TIE and call_of(one) != choice)
            if counts and one.final in _NOT_APART and is_float(one):
                found = found.larger(reach_of(one))
        return found

    def _anywhere(self, outcome: Outcome) -> bool:
        """Whether it may come from any earlier tie: unknown makers, or state of an earlier step."""
        if self._first_step is None:
            return False
        return outcome.record.step > self._first_step or UNKNOWN in outcome.record.parents

    def _reached(self, outcome: Outcome) -> bool:
        makers = self._kin.makers(outcome) if self._touched else ()
        return self._anywhere(outcome) or any(id(one) in self._touched for one in makers)

    def _excuse(self, outcome: Outcome, reason: str, told: str) -> None:
        outcome.verdict, outcome.reason = "undecided", reason
        outcome.notes += (told,)
        self._touched.add(id(outcome))

    def _both(self, outcome: Outcome) -> Both:
        return Both(outcome, self._runs, self._layouts)


def _counted(rows: _Rows) -> str:
    return f"{sum(int(one.sum()) for one in rows)} of {sum(one.numel() for one in rows)} rows"
