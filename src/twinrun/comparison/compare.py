"""Two captures held side by side: the public `compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from twinrun.comparison.alone import alone
from twinrun.comparison.depth import Way, ways
from twinrun.comparison.divergence import advice, first_divergence, undecided_from
from twinrun.comparison.examine import Examiner
from twinrun.comparison.healing import heal
from twinrun.comparison.hinting import HINTED, add_hints
from twinrun.comparison.invariants import find_invariants
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.mapfile import load_map
from twinrun.comparison.measure import Ruler
from twinrun.comparison.noise import GoodRun, NoiseMeter
from twinrun.comparison.outcome import Outcome
from twinrun.comparison.pairing import Nearest, Pair, pair_up
from twinrun.comparison.parting import Parting
from twinrun.comparison.points import Key, Points
from twinrun.comparison.result import AGREEING, VERDICTS, Result
from twinrun.comparison.roots import renaming
from twinrun.comparison.rules import RuleSet
from twinrun.comparison.settings import Settings, settle
from twinrun.comparison.sides import problems_of_side, side_of
from twinrun.comparison.ties import settle_ties
from twinrun.comparison.view import View
from twinrun.errors import UsageError
from twinrun.recorder.reader import open_capture

Progress = Callable[[int, int, str], None]


def compare(
    baseline: str | Path | View,
    target: str | Path | View,
    *,
    map: str | Path | None = None,
    noise: str | Path | View | Sequence[str | Path | View] | None = None,
    layouts: str | Path | None = None,
    settings: str | Path | None = None,
    allow: Iterable[str] = (),
    floor: Mapping[str, float] | None = None,
    k: float | Mapping[str, float] | None = None,
    skip_steps: int | tuple[int, int] = (0, 0),
    hints: str = "first",
    progress: Progress | None = None,
) -> Result:
    """Hold two captures side by side and find the first point where they part.

    `noise`: a second run known to be right, or several, which measure the floor. `map`, `layouts` and
    `settings` are paths of YAML files (docs/map.md, docs/dims.md, docs/verdicts.md); `floor`
    ({glob: relative L2}), `k` and `allow` win over the file. `skip_steps` drops the first steps of
    baseline and target. `progress(done, total, name)` is called after each point. Memory stays that
    of a few slices, whatever the captures' size. Raises CaptureError, MapError, DimsError, UsageError.
    """
    skips = (skip_steps, skip_steps) if isinstance(skip_steps, int) else skip_steps
    if min(skips) < 0 or hints not in HINTED:
        raise UsageError("skip_steps are at least 0, hints is 'first' or 'all'")
    ruling = settle(settings, allow=allow, floor=floor, k=k)
    rules = RuleSet(load_map(map)) if map is not None else None
    stated = Layouts.load(layouts) if layouts is not None else Layouts()
    good = _good(noise)
    named = ", ".join(str(getattr(v, "path", v)) for v in good) or None
    told = {"map": map, "noise": named, "layouts": layouts, "settings": settings}
    options = {name: str(getattr(v, "path", v)) for name, v in told.items() if v is not None}
    if any(skips):
        options["skip_steps"] = f"{skips[0]},{skips[1]}"
    with ExitStack() as opened:
        one, two = _opened(baseline, opened), _opened(target, opened)
        runs = (Points(one, skip=skips[0]), Points(two, skip=skips[1], rename=renaming(one, two)))
        meter = None
        if good:
            views = [_opened(run, opened) for run in good]
            meter = NoiseMeter(runs[0], [_beside(one, view, skips[0]) for view in views], stated)
        held = _Comparison(runs, rules, stated, ruling, meter, hints, progress, options)
        return held.result()


def _deepest(pair: Pair, way_of: Mapping[Key, Way]) -> Way:
    return max((way_of[point.key] for point in pair.baseline), key=lambda way: way.depth)


def _good(noise: str | Path | View | Sequence[str | Path | View] | None) -> list[str | Path | View]:
    if noise is None:
        return []
    return list(noise) if isinstance(noise, (list, tuple)) else [noise]  # type: ignore[list-item]


def _beside(baseline: View, run: View, skip: int) -> GoodRun:
    points = Points(run, skip=skip, rename=renaming(baseline, run))
    return GoodRun(points, run.path, bool(run.run.options.get("perturb")))


def _opened(run: str | Path | View, opened: ExitStack) -> View:
    """A capture that is open already stays its owner's; one that is opened here is closed here."""
    if not isinstance(run, str | Path):
        return run
    capture = open_capture(str(run))
    opened.callback(capture.close)
    return capture


@dataclass
class _Comparison:
    runs: tuple[Points, Points]
    rules: RuleSet | None
    layouts: Layouts
    settings: Settings
    meter: NoiseMeter | None
    hints: str
    progress: Progress | None
    options: dict[str, str]

    def result(self) -> Result:
        """Examine every pair, then settle what depends on several."""
        outcomes = self._outcomes()
        heal(outcomes, *self.runs)
        settle_ties(outcomes, self.runs, self.layouts)
        for outcome in outcomes:
            refused = outcome.final not in (*AGREEING, "unreadable")
            if refused and self.settings.allows(outcome.name):
                outcome.verdict = "allowed"
        invariants = find_invariants(outcomes, *self.runs)
        add_hints(outcomes, self.runs, self.layouts, self.hints)
        rows = tuple(outcome.row(at) for at, outcome in enumerate(outcomes, 1))
        sides = (side_of(self.runs[0]), side_of(self.runs[1]))
        first, tail = first_divergence(rows), undecided_from(rows)
        undecided = any(row.verdict == "undecided" for row in rows)
        return Result(
            baseline=sides[0],
            target=sides[1],
            rows=rows,
            first=first,
            invariants=invariants,
            undecided_from=tail,
            options=self.options,
            advice=advice(first, undecided, rows, invariants, sides),
            problems=self._problems(),
            counts={v: sum(row.verdict == v for row in rows) for v in VERDICTS},
        )

    def _outcomes(self) -> list[Outcome]:
        baseline, target = self.runs
        pairs = list(pair_up(baseline, target, self.rules))
        way_of = {point.key: way for point, way in ways(baseline)}
        nearest = (Nearest(baseline), Nearest(target))
        examiner = Examiner(baseline, target, self.layouts)
        outcomes = []
        parting = Parting()
        for done, pair in enumerate(pairs, 1):
            if pair.baseline and pair.target:
                way, step = _deepest(pair, way_of), pair.lead.key.step
                ruler = self._ruler(pair, parting.since(way, step))
                outcomes.append(examiner.examine(pair, ruler))
                parting.pass_by(outcomes[-1], way, step)
            elif pair.baseline:
                outcomes.append(alone(pair, baseline, target, nearest[1], self.layouts))
            else:
                outcomes.append(alone(pair, target, baseline, nearest[0], self.layouts))
            if self.progress is not None:
                self.progress(done, len(pairs), pair.lead.key.name)
        return outcomes

    def _ruler(self, pair: Pair, way: Way) -> Ruler:
        noise = self.meter.noise(pair.baseline) if self.meter is not None else []
        return Ruler(pair.lead.key.name, way, self.settings, noise)

    def _problems(self) -> tuple[str, ...]:
        told = [
            *problems_of_side("baseline", self.runs[0]),
            *problems_of_side("target", self.runs[1]),
        ]
        if self.meter is not None:
            told += self.meter.problems
        told += [
            f"layout glob {glob!r} matched no point that wanted one" for glob in self.layouts.unused
        ]
        return tuple(told)
