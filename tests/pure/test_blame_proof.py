"""Which choices a proof may hold to the baseline's: those that rounding tipped, where nothing else differs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from twinrun.comparison.result import Floor, Row
from twinrun.diagnosis.proof import tipped_modules


def row(name: str, verdict: Any, reason: str = "", exact: bool = False) -> Row:
    floor = Floor(0.0, 0.0, 1.0, "exact" if exact else "first-order", "")
    return Row(1, 0, name, 0, False, "activation", verdict, "differs", reason, floor=floor)


TIED = [
    row("gate:output.1", "undecided", "tie", exact=True),
    row("gate:output.0", "undecided", "tie"),
    row("experts:input.index", "undecided", "tie", exact=True),
    row("experts:output", "undecided", "after a tie"),
]


def result(*rows: Row) -> Any:
    return SimpleNamespace(rows=rows)


def test_only_the_module_that_chose_is_held() -> None:
    """Not the one that is given the choice: what that computes from it must come right by itself."""
    assert tipped_modules(result(*TIED, row("w:parameter", "unmatched"))) == ["gate"]


@pytest.mark.parametrize("name", ["experts:output", "gate:output.1", "lm_head:output"])
def test_nothing_is_held_while_anything_differs(name: str) -> None:
    """A tie excuses nothing beside it."""
    assert tipped_modules(result(*TIED, row(name, "differs"))) == []


def test_nothing_is_held_without_a_tie() -> None:
    """Undecided for another reason is no choice."""
    assert tipped_modules(result(row("gate:output.1", "undecided", "", exact=True))) == []
