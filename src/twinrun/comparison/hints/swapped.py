"""The tensor of another point stands here."""

from __future__ import annotations

from twinrun.comparison.hints.case import Case
from twinrun.comparison.result import Hint


def swapped(case: Case) -> Hint | None:
    """Another of the target's tensors equals the baseline's here."""
    for name, values in case.others():
        if case.promising(case.baseline, values):
            residual = case.explained(case.baseline, values)
            if residual is not None:
                return Hint(
                    "swapped", f"the baseline's tensor is what the target holds as {name}", residual
                )
    return None
