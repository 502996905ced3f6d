"""What is known of every module so far, and what to ask next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from twinrun.comparison.result import Result, Row
from twinrun.diagnosis.finding import Part, Shadow, State
from twinrun.diagnosis.segments import Segment, Stretch
from twinrun.diagnosis.tree import Module
from twinrun.diagnosis.weighing import Weighing

_MOST = 96
"""So many doubtful modules are run one precision up at once, the worst first."""
_ADDS_UP = "what it holds adds no more than rounding, one by one"


@dataclass
class Account:
    """One judged stretch with the pass that it was judged in, and its shadow where one was run.

    ``inside``: why its operators told nothing, where they were looked at.
    """

    segment: Segment
    weighing: Weighing
    shadow: Shadow | None = None
    state: State = "unknown"
    why: str = ""
    suspected: bool = False
    asked: bool = False
    inside: str = ""


class Accounts:
    """By module and stretch; a later pass replaces what an earlier one could not settle."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, Stretch], Account] = {}

    def __iter__(self) -> Iterator[Account]:
        return iter(self._held.values())

    def add(self, segment: Segment, weighing: Weighing) -> None:
        """Enter what a pass says of one stretch; what was inspected already stays as it was found."""
        key = (segment.module.path, segment.stretch)
        known = self._held.get(key)
        if known is not None and (known.suspected or known.asked or segment.state == "unknown"):
            return
        self._held[key] = Account(segment, weighing, state=segment.state, why=segment.why)

    def get(self, path: str, stretch: Stretch) -> Account | None:
        """The account of one stretch."""
        return self._held.get((path, stretch))

    def to_enter(
        self, blocks: Iterable[Module], entered: set[str], *, hunting: bool
    ) -> list[Module]:
        """The blocks to look into: those that differ; in want of such, the doubtful, then all that moved."""
        shut = [
            (one, held)
            for one in blocks
            if one.path not in entered and (held := self.get(one.path, "whole")) is not None
        ]
        found = [one for one, held in shut if held.state == "differs"]
        if found or not hunting:
            return found
        doubtful = [one for one, held in shut if held.state in ("undecided", "unknown")]
        return doubtful or [one for one, held in shut if held.segment.moved]

    def doubts(self, *, hunting: bool, below: bool) -> list[Account]:
        """Stretches to inspect: those that differ; where none does and the runs part, the doubtful ones.

        Doubtful is what rounding alone may or may not explain; with ``below`` everything that moved.
        A block that was entered is answered for by what it holds.
        """
        fresh = [one for one in self._held.values() if not one.suspected and self._last(one)]
        found = [one for one in fresh if one.state == "differs"]
        if below:
            return _worst([one for one in fresh if one.segment.moved and not one.asked])
        if found or not hunting:
            return found
        return _worst([one for one in fresh if one.segment.moved and not one.asked])

    def clear_entered(self) -> None:
        """A block all of whose parts are clean adds up rounding, or tips a choice: it is no fault."""
        for account in self._held.values():
            segment = account.segment
            if segment.stretch != "whole" or account.state not in ("differs", "undecided"):
                continue
            inside = [self.get(one.path, _stretch(one)) for one in segment.module.below()]
            own = self.get(segment.module.path, "own code")
            if own is None or not inside:
                continue
            if all(one is not None and one.state == "clean" for one in (own, *inside)):
                account.state, account.why = "clean", _ADDS_UP

    def parts(self, rows: Mapping[tuple[str, str], Sequence[Row]]) -> tuple[Part, ...]:
        """Everything as parts, in execution order; ``rows`` as ``rows_by_module`` gives them."""
        held = sorted(
            self._held.values(), key=lambda one: (one.segment.module.order, one.segment.stretch)
        )
        return tuple(part_of(one, rows) for one in held)

    def _last(self, account: Account) -> bool:
        """Whether nothing finer is known: a leaf, own code, or a block that was not entered."""
        segment = account.segment
        whole_block = segment.stretch == "whole" and not segment.module.leaf
        return not (whole_block and self.get(segment.module.path, "own code") is not None)


def part_of(account: Account, rows: Mapping[tuple[str, str], Sequence[Row]]) -> Part:
    """An account as a part of the finding."""
    segment = account.segment
    module = segment.module
    worst = None if segment.worst is None else account.weighing.row(segment.worst)
    times = worst.ratio if worst is not None else None
    shadow = account.shadow
    if shadow is not None and shadow.times is not None:
        times = shadow.times
    given, gave = (rows.get((module.path, role), ()) for role in ("input", "output"))
    return Part(
        position=max((row.position for row in (*given, *gave)), default=0),
        module=module.path,
        module_class=module.module_class,
        state=account.state,
        leaf=module.leaf,
        how=segment.how,
        isolated=worst,
        accumulated=_largest(gave),
        inherited=_largest(given),
        shadow=shadow,
        times=times,
        why=account.why or ("its own code" if segment.stretch == "own code" else ""),
    )


def rows_by_module(result: Result) -> dict[tuple[str, str], list[Row]]:
    """The rows of activations by module path and role (``input``, ``output``)."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in result.rows:
        path, _, port = row.name.rpartition(":")
        role = port.partition(".")[0]
        if row.kind == "activation" and role in ("input", "output"):
            found.setdefault((path, role), []).append(row)
    return found


def _largest(rows: Sequence[Row]) -> Row | None:
    return max(rows, key=lambda row: row.ratio or 0.0, default=None)


def _stretch(module: Module) -> Stretch:
    return "whole" if module.leaf else "own code"


def _worst(accounts: list[Account]) -> list[Account]:
    ordered = sorted(accounts, key=_severity, reverse=True)[:_MOST]
    return sorted(ordered, key=lambda one: one.segment.module.order)


def _severity(account: Account) -> float:
    worst = account.segment.worst
    return 0.0 if worst is None else worst.ratio or 0.0
