"""Holds tensors of one pass against the baseline's own, each judged as if it were all there was.

The floors are those of one module: what the run did before it is not in them, because its inputs
were the baseline's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from twinrun.comparison.depth import Way
from twinrun.comparison.examine import Examiner
from twinrun.comparison.hinting import add_hints
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.measure import Ruler
from twinrun.comparison.outcome import Outcome
from twinrun.comparison.pairing import Pair
from twinrun.comparison.points import Key, Point, Points
from twinrun.comparison.reach import is_index
from twinrun.comparison.result import Row
from twinrun.comparison.roots import renaming
from twinrun.comparison.settings import Settings
from twinrun.comparison.ties import TIE, settle_ties
from twinrun.comparison.view import View
from twinrun.diagnosis.natives import NATIVE
from twinrun.diagnosis.tree import Module
from twinrun.numerics.dtypes import coarser, format_of
from twinrun.numerics.floor import PER_BLOCK
from twinrun.recorder.record import Record

# A sum inside a module that is not looked into: as compare's depth counts it.
_UNSEEN = 8
# Rounding tips a choice in some rows, not in most.
_TIPPED = 0.25

Weighed = Outcome


class Weighing:
    """The baseline's capture and that of one pass, side by side."""

    def __init__(
        self,
        baseline: View,
        run: View,
        settings: Settings | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        rename = _renaming(baseline, run, aliases or {})
        self.runs = (Points(baseline), Points(run, rename=rename))
        self._settings = settings or Settings()
        self._layouts = Layouts()
        self._examiner = Examiner(*self.runs, self._layouts)
        self._by_module: dict[tuple[str, str], list[Point]] = defaultdict(list)
        self._position: dict[Key, int] = {}
        for at, point in enumerate(self.runs[0], 1):
            record = self.runs[0].first(point)
            self._position[point.key] = at
            if record.kind == "activation" and not record.recompute:
                self._by_module[record.module, record.role].append(point)
        self._ways: dict[str, Way] = {}

    def inputs(self, module: Module, *, native: bool = False) -> list[Weighed]:
        """What the module was given in this pass; ``native``: before grafts replaced it."""
        return self._weigh(module, "input", native)

    def outputs(self, module: Module, *, native: bool = False) -> list[Weighed]:
        """What the module gave back in this pass; ``native``: before grafts replaced it."""
        found = self._weigh(module, "output", native)
        if any(one.measured == "differs" and is_index(one) for one in found):
            self._settle_choices(module, found)
        return found

    def _settle_choices(self, module: Module, made: list[Weighed]) -> None:
        """Choices that rounding tipped, and what follows from them at once, are undecided.

        Where the scores of a choice were not recorded, one that floats were given to and that is
        the same in most places may have been tipped as well.
        """
        settle_ties(made, self.runs, self._layouts)
        given = (self.runs[0].first(point) for point in self._by_module[module.path, "input"])
        from_floats = any(not format_of(one.dtype).exact for one in given)
        for one in made:
            rare = one.measures is not None and one.measures.share <= _TIPPED
            if one.verdict == "undecided":
                one.measured = "undecided"
            elif one.measured == "differs" and is_index(one) and from_floats and rare:
                one.measured, one.reason = "undecided", TIE

    def operators(self, module: Module) -> list[Row]:
        """What each operator of the module's own code made, as both sides recorded it."""
        rows = []
        for point in self._by_module[module.path, "operator"]:
            partner = self.runs[1].get(point.key)
            if partner is not None:
                rows.append(self.row(self.examine(point, partner, module)))
        return rows

    def hint(self, weighed: Weighed) -> None:
        """Try what would explain a difference; a sum over ranks that is missing is told already."""
        if weighed.summed is not None:
            weighed.hint = weighed.summed
            return
        held = weighed.verdict
        weighed.verdict = "differs"
        add_hints([weighed], self.runs, self._layouts, "all")
        weighed.verdict = held

    def row(self, weighed: Weighed) -> Row:
        """The finished row, at the baseline's place in order."""
        return weighed.row(self._position.get(weighed.pair.lead.key, 0))

    def _weigh(self, module: Module, role: str, native: bool) -> list[Weighed]:
        found = []
        for point in self._by_module[module.path, role]:
            partner = self.runs[1].get(_native(point.key) if native else point.key)
            if partner is None:
                found.append(self._alone(point))
            else:
                found.append(self.examine(point, partner, module))
        return found

    def examine(
        self, point: Point, partner: Point, module: Module, *, gradient: bool = False
    ) -> Weighed:
        """Measure a pair by the floor of this module alone."""
        pair = Pair((point,), (partner,))
        way = self.way(module)
        if gradient:
            # A weight's gradient sums over every row that the module was given.
            longest = max(way.reduction, self._rows(module))
            way = replace(way, reduction=longest, gradient=True)
        ruler = Ruler(point.key.name, way, self._settings)
        found = self._examiner.examine(pair, ruler)
        if found.summed is not None:
            found.measured = "differs"
        return found

    def _alone(self, point: Point) -> Weighed:
        outcome = Outcome(Pair((point,), ()), self.runs[0].first(point), "unmatched")
        outcome.reason = "one side only"
        return outcome

    def way(self, module: Module) -> Way:
        """What a value goes through inside a module: roundings, the longest sum, the coarsest type."""
        known = self._ways.get(module.path)
        if known is None:
            inside = [module, *module.below()]
            records = [r for one in inside for r in self._records(one.path)]
            depth = PER_BLOCK * max(1, module.repeats) if module.children else 1
            known = Way(depth, _longest(records), _coarsest(records))
            self._ways[module.path] = known
        return known

    def _rows(self, module: Module) -> int:
        """Rows of the largest tensor at the module's boundary: all dims but the last."""
        return max((math.prod(one.shape[:-1]) for one in self._records(module.path)), default=1)

    def _records(self, path: str) -> Iterable[Record]:
        for role in ("input", "output"):
            for point in self._by_module[path, role]:
                yield self.runs[0].first(point)


def _renaming(one: View, two: View, aliases: Mapping[str, str]) -> Callable[[Record], str]:
    """The run's names as the baseline's: the pairs that comparing found first, then by the roots."""
    by_root = renaming(one, two)
    if not aliases:
        return by_root

    def rename(record: Record) -> str:
        module, first, port = record.name.partition(":")
        port, second, rest = port.partition(":")
        found = aliases.get(f"{module}{first}{port}")
        return by_root(record) if found is None else f"{found}{second}{rest}"

    return rename


def _native(key: Key) -> Key:
    return replace(key, name=key.name + NATIVE)


def _longest(records: Iterable[Record]) -> int:
    sums = [
        max(one.reduction, _UNSEEN * (one.shape[-1] if one.shape else 1))
        for one in records
        if not format_of(one.dtype).exact
    ]
    return max([*sums, 1])


def _coarsest(records: Iterable[Record]) -> str:
    name = ""
    for one in records:
        if one.role == "output":
            name = coarser(name, one.dtype).name
    return name
