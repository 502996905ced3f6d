"""Modules that the two programs do not call equally often: their calls have no partners."""

from __future__ import annotations

from collections import defaultdict

from twinrun.comparison.view import View
from twinrun.diagnosis.tree import boundary_records


def called_otherwise(baseline: View, target: View) -> dict[str, tuple[int, int]]:
    """By path: how often each program called the module in the first step where that is not the same.

    A rewrite that goes through its tokens in parts calls what lies inside several times. The first of
    those calls is no partner of the baseline's only one, whatever the shapes and layouts say.
    """
    one, two = _calls(baseline), _calls(target)
    shared = {step for step, _ in one} & {step for step, _ in two}
    found: dict[str, tuple[int, int]] = {}
    for key in sorted(one.keys() | two.keys()):
        step, path = key
        counts = one.get(key, 0), two.get(key, 0)
        if step in shared and counts[0] != counts[1]:
            found.setdefault(path, counts)
    return found


def _calls(view: View) -> dict[tuple[int, str], int]:
    """(step, path) -> calls of a module, on the rank that called it most often."""
    found: dict[tuple[int, str], int] = defaultdict(int)
    for record in boundary_records(view):
        if not record.recompute:
            key = (record.step, record.module)
            found[key] = max(found[key], record.occurrence + 1)
    return found
