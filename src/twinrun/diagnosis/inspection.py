"""Suspects looked at from inside: one precision up, and operator by operator, on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from twinrun.comparison.points import Points
from twinrun.comparison.result import Hint, Result
from twinrun.comparison.view import View
from twinrun.diagnosis.accounts import Account
from twinrun.diagnosis.finding import Operator, Shadow, Suspect
from twinrun.diagnosis.sequence import Unsettled, difference_of
from twinrun.diagnosis.threeway import ThreeWay, settle
from twinrun.diagnosis.tree import Module
from twinrun.diagnosis.weighing import Weighing


@dataclass(frozen=True)
class Inspection:
    """What both sides' inspected runs hold; ``baseline`` None where that side cannot be run."""

    original: View
    baseline: View | None
    target: View
    spread: frozenset[str]

    def settle(self, accounts: Sequence[Account]) -> None:
        """Give every account its shadow, and the state that follows from it."""
        mine = Points(self.baseline) if self.baseline is not None else None
        three = ThreeWay(mine, Points(self.target), Points(self.original))
        for account in accounts:
            account.asked = True
            module = account.segment.module
            shadow = three.shadow(module.path, account.weighing.way(module))
            if shadow is None:
                account.why = account.why or "it has no shadow one precision up"
                continue
            account.shadow = shadow
            worst = account.segment.worst
            apart = worst.measures.relative_l2 if worst and worst.measures else None
            dtype = worst.record.dtype if worst else ""
            before = account.state
            account.state = settle(before, apart, shadow, self._spread(module), dtype)
            account.why = _why(account, shadow, apart) or account.why

    def named(self, suspect: Suspect, fresh: Sequence[Account]) -> Suspect:
        """The suspect with its operator, if it is one of the fresh ones and one can be told."""
        for account in fresh:
            if account.segment.module.path == suspect.module and suspect.operator is None:
                operator = self._operator(account)
                # Where a difference shows explains nothing beside the operator that makes it.
                weak = operator is not None and suspect.hint and suspect.hint.kind == "region"
                return replace(suspect, operator=operator, hint=None if weak else suspect.hint)
        return suspect

    def _operator(self, account: Account) -> Operator | None:
        if self.baseline is None:
            return None
        module = account.segment.module
        rows = Weighing(self.baseline, self.target).operators(module)
        found = difference_of(self.baseline, self.target, module.path, rows)
        if isinstance(found, Unsettled):
            account.inside = found.reason
            return None
        if found.kind == "value" and self._spread(module):
            # One rank's operator holds a part of a sum: other values are its right.
            return None
        return Operator(found.operator, found.kind, found.text)

    def _spread(self, module: Module) -> bool:
        inside = {module.path, *(one.path for one in module.below())}
        return bool(inside & self.spread)


def spread_modules(result: Result) -> frozenset[str]:
    """Modules whose own weights lie over ranks in one run and not alike in the other."""
    found = set()
    for row in result.rows:
        if row.kind != "parameter" or row.baseline is None or row.target is None:
            continue
        if row.baseline.dims.count("[") != row.target.dims.count("[") or (
            "[" in row.target.dims and row.baseline.ranks != row.target.ranks
        ):
            found.add(row.name.rpartition(":")[0].rpartition(".")[0])
    return frozenset(found)


def suspect_of(account: Account) -> Suspect:
    """A confirmed account as a suspect; its hint is tried on what shows the fault first."""
    segment = account.segment
    module = segment.module
    shown = segment.first
    hint, row = None, None
    if shown is not None:
        account.weighing.hint(shown)
        hint, row = shown.hint, account.weighing.row(shown)
    rounds = account.state == "rounds elsewhere"
    fault = "rounding" if rounds else "own code" if segment.stretch == "own code" else "module"
    if rounds:
        hint = _rounding(account.shadow)
    name = row.name if row is not None else module.path
    return Suspect(
        module.path,
        module.module_class,
        name,
        fault,  # type: ignore[arg-type]
        row=row,
        hint=hint,
        why=account.why,
    )


def _rounding(shadow: Shadow | None) -> Hint | None:
    if shadow is None or shadow.apart is None:
        return None
    text = (
        f"rounding placed elsewhere: in {shadow.precision} both runs compute the same "
        f"(relative L2 {shadow.apart:.1e})"
    )
    return Hint("rounding", text, shadow.apart)


def _why(account: Account, shadow: Shadow, apart: float | None) -> str:
    if shadow.apart is None or shadow.allowed is None:
        if account.state != "undecided":
            return ""
        return (
            "it rounds in other places or computes something else: --baseline CMD would tell which"
        )
    told = f"one precision up ({shadow.precision}) the two are {shadow.apart:.1e} apart"
    if account.state == "differs":
        return f"{told}, where rounding explains {shadow.allowed:.1e}"
    if account.state == "clean":
        return f"{told}: the same function"
    return told
