"""The two programs and what is known of their runs: passes, captures, comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from twinrun.comparison.compare import compare
from twinrun.comparison.result import Result
from twinrun.comparison.view import View
from twinrun.diagnosis.calls import called_otherwise
from twinrun.diagnosis.grafts import (
    aliases_of,
    boundaries,
    either,
    points,
    write_aliases,
    write_layouts,
)
from twinrun.diagnosis.options import Wishes
from twinrun.diagnosis.passes import Grafts, Passes
from twinrun.diagnosis.tree import tree_of
from twinrun.diagnosis.weighing import Weighing
from twinrun.errors import CaptureError
from twinrun.recorder.options import Options
from twinrun.recorder.reader import open_capture

EVERY = Options(taps="modules")
"""Record every module's inputs and outputs."""


class Laboratory:
    """Both runs as they went, and further passes with values of the baseline in the target.

    ``held`` are parameters and buffers that every further pass takes from the baseline. ``otherwise`` are
    modules that the two call not equally often: no pass gives them anything. Captures stay
    open as long as ``opened`` does. ``backward`` is what to record of a backward pass. CaptureError where
    the baseline's capture lacks inputs.
    """

    def __init__(self, passes: Passes, wishes: Wishes, opened: ExitStack) -> None:
        self.passes = passes
        self.wishes = wishes
        self.held: list[str] = []
        self._opened = opened
        options = replace(EVERY, parameters=True)
        if wishes.gradients:
            options = replace(options, gradients=True, own_gradients=True)
        if passes.capture is None:
            passes.capture = passes.plain("baseline", "as it is", options)
        self.baseline = self._open(passes.capture)
        # What a capture lacks would stand alone in the target's.
        own = bool(self.baseline.run.options.get("own_gradients"))
        self.backward = replace(EVERY, gradients=True, own_gradients=own)
        options = replace(options, own_gradients=own and wishes.gradients)
        if not any(one.role == "input" and one.has_payload for one in self.baseline.records):
            raise CaptureError(
                f"{self.baseline.path} holds no module's inputs, so no module can be given them",
                expected="a capture with the values of inputs and outputs",
                do="record it again: twinrun run --out DIR --taps modules --parameters -- CMD",
            )
        target = self._open(passes.plain("target", "as it is", options))
        self.result = self.compared(target)
        self.otherwise = called_otherwise(self.baseline, target)
        self.tree = tree_of(self.baseline, but=self.otherwise)
        self._aliases = aliases_of(self.result)
        self._names = write_aliases(self._aliases, passes.work / "names.json")
        self.as_run = self.weighing(self.baseline, target)
        self._layouts = write_layouts(self.result, passes.work / "layouts.json")

    @property
    def has_baseline(self) -> bool:
        """Whether the baseline can be run again: no capture stands in for it."""
        return self.passes.baseline is not None

    def compared(self, target: View) -> Result:
        """The baseline and a capture of the target side by side."""
        told = self.wishes.settings
        return compare(
            self.baseline,
            target,
            noise=self.wishes.noise or None,
            floor=dict(told.floors),
            k=dict(told.k) or None,
            allow=told.allow,
        )

    def weighing(self, one: View, two: View) -> Weighing:
        """Two captures, each module to be judged alone."""
        return Weighing(one, two, self.wishes.settings, self._aliases)

    def again(self, purpose: str, options: Options) -> View | None:
        """The baseline once more, with instruments; None where a capture stands in for it."""
        if not self.has_baseline:
            return None
        return self._open(self.passes.plain("baseline", purpose, options))

    def grafted(self, purpose: str, b2t: str, options: Options) -> tuple[View, View]:
        """A pass of the target with these points from the baseline; both captures."""
        grafts = Grafts(either(b2t, points(self.held)), self._layouts)
        options = replace(options, aliases=self._names)
        one, two = self.passes.grafted(purpose, grafts, options)
        baseline = self.baseline if one == self.passes.capture else self._open(one)
        return baseline, self._open(two)

    def reset(self, purpose: str, paths: set[str]) -> Weighing:
        """A pass in which every boundary of these modules starts from the baseline's values."""
        options = replace(EVERY, natives=globs(sorted(paths)))
        return self.weighing(
            *self.grafted(purpose, boundaries(sorted(paths), "input", "output"), options)
        )

    def _open(self, path: Path) -> View:
        capture = open_capture(path)
        self._opened.callback(capture.close)
        return capture


def many(names: Sequence[str], what: str) -> str:
    """The only name, or how many there are of what."""
    return names[0] if len(names) == 1 else f"{len(names)} {what}"


def globs(paths: Iterable[str]) -> str:
    """Module paths as globs that match nothing else, with commas."""
    return ",".join(_as_glob(path) for path in paths)


def boundaries_of(paths: Iterable[str]) -> Options:
    """What it takes to record only these modules' own inputs and outputs."""
    return Options(taps=",".join(f"{_as_glob(path)}:*" for path in paths))


def _as_glob(path: str) -> str:
    return path.replace("[", "[[]")
