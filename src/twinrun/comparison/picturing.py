"""Chooses the points worth a picture and draws them: a second pass, only when a report is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path

from twinrun.comparison.alignment import Held, Misfit, Side, align
from twinrun.comparison.assemble import boxes
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.logical import Logical, slices
from twinrun.comparison.mapfile import load_map
from twinrun.comparison.matched import matched
from twinrun.comparison.painting import SLICE, Painter
from twinrun.comparison.pairing import Pair, pair_up
from twinrun.comparison.picture import Picture, Pictures
from twinrun.comparison.points import Point, Points
from twinrun.comparison.rank_pictures import rank_pictures
from twinrun.comparison.result import Result, Row, SideName
from twinrun.comparison.roots import renaming
from twinrun.comparison.rules import RuleSet
from twinrun.comparison.view import View
from twinrun.errors import TwinrunError
from twinrun.layout import Box
from twinrun.numerics.distance import measure
from twinrun.recorder.reader import open_capture

LIMIT = 128
"""Most points that are drawn."""
LARGEST = 1 << 24
"""Elements above which a tensor is sampled."""
BUDGET = 1 << 26
"""Elements looked at in all: a few seconds of one core. Points after that have no picture."""

_SAMPLE = 1 << 16
_ORDER = ("differs", "undecided", "allowed", "healed", "close")

Progress = Callable[[int, int, str], None]


def pictures(
    result: Result,
    baseline: str | Path | View,
    target: str | Path | View,
    *,
    map: str | Path | None = None,
    layouts: str | Path | None = None,
    skip_steps: tuple[int, int] = (0, 0),
    limit: int = LIMIT,
    progress: Progress | None = None,
) -> Pictures:
    """Draw the points of `result` that are worth it, from the captures that it was made of.

    The options are those that `compare` was given. Memory stays that of a few slices and of one
    rank's tensor (at most `LARGEST` elements). Raises CaptureError, MapError, DimsError.
    """
    rules = RuleSet(load_map(map)) if map is not None else None
    stated = Layouts.load(layouts) if layouts is not None else Layouts()
    chosen = choose(result, limit)
    drawn: dict[int, Picture] = {}
    refused: dict[int, str] = {}
    with ExitStack() as opened:
        one, two = _opened(baseline, opened), _opened(target, opened)
        runs = (
            Points(one, skip=skip_steps[0]),
            Points(two, skip=skip_steps[1], rename=renaming(one, two)),
        )
        pairs = list(pair_up(*runs, rules))
        budget = BUDGET
        for done, row in enumerate(chosen, 1):
            if budget <= 0:
                refused[row.position] = "the points before it held too many elements"
                continue
            found = _Drawing(runs, stated, row, pairs[row.position - 1]).picture()
            if isinstance(found, str):
                refused[row.position] = found
            else:
                drawn[row.position] = found
                budget -= found.looked_at * (2 if found.ranks else 1)
            if progress is not None:
                progress(done, len(chosen), row.name)
    return Pictures(drawn, refused, limit)


def choose(result: Result, limit: int = LIMIT) -> list[Row]:
    """The rows worth a picture, most worthy first: where the runs part, the worst, one a module."""
    usable = [row for row in result.rows if row.measures is not None and not row.measures.bits_equal
              and row.verdict in _ORDER and row.reason not in ("shape", "no values")]  # fmt: skip
    first = [result.first.row, *result.first.last_agreed[-1:]] if result.first else []
    first += [result.undecided_from] if result.undecided_from else []
    for measure_of in (_l2, _ratio):
        first += [max(usable, key=measure_of)] if usable else []
    first += [row for row in usable if row.hint is not None]
    wanted = {row.position: row for row in first if row in usable}
    per_module: dict[tuple[str, str], Row] = {}
    for row in usable:
        key = (row.name.partition(":")[0], row.verdict)
        if key not in per_module or _ratio(row) > _ratio(per_module[key]):
            per_module[key] = row
    rest = sorted(per_module.values(), key=_weight)
    wanted.update((row.position, row) for row in rest)
    for row in sorted(usable, key=_weight):  # what is left of the limit
        wanted.setdefault(row.position, row)
    return list(wanted.values())[:limit]


def _weight(row: Row) -> tuple[int, float]:
    """Differences as they came, everything else by how far it is from agreeing."""
    at = _ORDER.index(row.verdict)
    return at, row.position if row.verdict == "differs" else -_ratio(row)


def _l2(row: Row) -> float:
    value = row.measures.relative_l2 if row.measures else 0.0
    return value if value == value else float("inf")


def _ratio(row: Row) -> float:
    value = row.ratio or 0.0
    return value if value == value else float("inf")


def _opened(run: str | Path | View, opened: ExitStack) -> View:
    if not isinstance(run, str | Path):
        return run
    capture = open_capture(str(run))
    opened.callback(capture.close)
    return capture


@dataclass(frozen=True)
class _Drawing:
    runs: tuple[Points, Points]
    layouts: Layouts
    row: Row
    pair: Pair

    def picture(self) -> Picture | str:
        """The picture, or why there is none."""
        rule = self.pair.rule
        if rule is not None and not rule.renames:
            return "a map transforms this point"
        if not self.pair.baseline or not self.pair.target:
            return "it was recorded on one side only"
        sides = (
            self._held(self.pair.baseline[0], self.runs[0]),
            self._held(self.pair.target[0], self.runs[1]),
        )
        if not all(record.has_payload for held in sides for record in held.records):
            return "a side holds statistics only"
        try:
            return self._drawn(*align(*sides))
        except Misfit as misfit:
            return misfit.text
        except TwinrunError as error:
            return error.summary
        finally:
            for held in sides:
                held.release()

    def _held(self, point: Point, points: Points) -> Held:
        return Held(points.view, points.records(point), self.layouts)

    def _drawn(self, one: Side, two: Side) -> Picture:
        views = list(_views(one, two))
        apart = [_apart(view.a, view.b) for view in views] if len(views) > 1 else [0.0]
        seen = views[max(range(len(views)), key=apart.__getitem__)]
        a, b, at = seen.a, seen.b, seen.group
        if a.shape != b.shape:
            raise Misfit("differs", "shape", "the shapes of the two sides differ")
        painter = Painter(a.shape, a.dtype, b.dtype)
        for box in _sampled(a.shape):
            painter.add(box, a.read(box), b.read(box))
        side: SideName = "target" if len(two.held.records) > 1 else "baseline"
        ranks, notes = rank_pictures(one, two, at, side) if max(a.elements, 1) <= LARGEST else ((), ())  # fmt: skip
        if a.elements > LARGEST and max(len(one.held.records), len(two.held.records)) > 1:
            notes = ("ranks are not drawn one by one: the tensor is too large",)
        if seen.told:
            notes = (seen.told, *notes)
        return Picture(
            position=self.row.position,
            elements=a.elements,
            looked_at=painter.looked_at,
            histogram=painter.histogram,
            heat=painter.heat,
            worst=painter.worst,
            rank_side=side,
            ranks=ranks,
            notes=notes,
        )


def _facing(one: Side, two: Side, a: Logical, b: Logical) -> tuple[Logical, Logical]:
    return (a, b) if one.inferred or two.inferred else matched(a, one.dims, b, two.dims)


@dataclass(frozen=True)
class _Seen:
    """One way to see the pair: a data group, by the eyes of one rank where replicas are not equal."""

    group: int
    a: Logical
    b: Logical
    told: str


def _views(one: Side, two: Side) -> Iterator[_Seen]:
    """All that `compare` measured; the one that lies furthest apart is drawn."""
    count = min(len(one.groups), len(two.groups))
    told = f"of {count} data groups, the one that lies furthest apart: number " if count > 1 else ""
    for at in range(count):
        pair = _facing(one, two, one.groups[at], two.groups[at])
        yield _Seen(at, *pair, told and f"{told}{at + 1}")
    for side, own in (("target", two), ("baseline", one)):
        for at, rank, logical in own.alternatives():
            if at < count:
                a, b = (logical, two.groups[at]) if own is one else (one.groups[at], logical)
                text = f"as rank {rank} of the {side} has it, where replicas are not equal"
                yield _Seen(at, *_facing(one, two, a, b), text)


def _apart(a: Logical, b: Logical) -> float:
    if a.shape != b.shape:
        return -1.0
    found = measure(lambda: slices(a, b), a.shape, a.dtype, b.dtype)
    return float("inf") if found.one_sided else found.relative_l2


def _sampled(shape: tuple[int, ...]) -> Iterator[Box]:
    """All of a tensor, or evenly spaced boxes that hold about `LARGEST` elements of a larger one."""
    if prod(shape) <= LARGEST:
        yield from boxes(shape, SLICE)
        return
    every = -(-prod(shape) // LARGEST)
    for at, box in enumerate(boxes(shape, _SAMPLE)):
        if at % every == 0:
            yield box
