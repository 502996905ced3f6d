"""Which call of a module to look at: the first in which its operators differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinrun.comparison.result import Row
from twinrun.comparison.view import View
from twinrun.diagnosis.operator_file import Sequence as Listed
from twinrun.diagnosis.operator_file import sequences


@dataclass(frozen=True, slots=True)
class Calls:
    """One call of a module on the lowest rank of each side: ``nth`` of the module's calls in ``step``."""

    baseline: Listed
    target: Listed
    step: int
    nth: int
    processes: tuple[int, int]


def call_in_question(
    baseline: View, target: View, module: str, rows: Sequence[Row]
) -> Calls | None:
    """The first call with an operator that differs, else the first that both sides list."""
    mine, theirs = _listed(baseline, module), _listed(target, module)
    if mine is None or theirs is None:
        return None
    both = [key for key in mine[1] if key in theirs[1]]
    off = {(row.step, row.occurrence) for row in rows if row.verdict == "differs"}
    chosen = next((key for key in both if key in off), both[0] if both else None)
    if chosen is None:
        return None
    return Calls(mine[1][chosen], theirs[1][chosen], *chosen, (mine[0], theirs[0]))


def _listed(view: View, module: str) -> tuple[int, dict[tuple[int, int], Listed]] | None:
    """The index of the first process that lists the module, and its calls by (step, how-manieth)."""
    for index, process in enumerate(view.processes):
        found = list(sequences(view.path, process, module))
        if found:
            return index, _by_step(found)
    return None


def _by_step(found: Sequence[Listed]) -> dict[tuple[int, int], Listed]:
    marked = any(one.mark for one in found)
    counts: dict[int, int] = {}
    calls = {}
    for one in found:
        step = one.mark if marked else one.call
        nth = counts[step] = counts.get(step, -1) + 1
        calls[step, nth] = one
    return calls
