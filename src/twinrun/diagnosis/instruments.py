"""The instruments that a run may carry inside the program: joined by name from ``recorder/joining.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from twinrun.diagnosis.operators import Operators
from twinrun.diagnosis.own_gradients import OwnGradients
from twinrun.diagnosis.perturb import Perturbation
from twinrun.diagnosis.shadow import Shadows
from twinrun.recorder.core import Recorder
from twinrun.recorder.intercept import Interceptor, Surround, interceptors, surrounds


class Instrument(Protocol):
    """One of them: it may take part at the ports of a call, around the call, or both."""

    @property
    def intercept(self) -> Interceptor | None:
        """Its part at the ports of a call."""

    @property
    def surround(self) -> Surround | None:
        """Its part around a call."""


class Instruments:
    """What is installed for one recorder; ``remove`` undoes it."""

    def __init__(self, parts: list[Instrument]) -> None:
        self.parts = parts

    def install(self) -> None:
        """Begin; in the order of the parts."""
        for part in self.parts:
            # Without an interceptor, modules that are not tapped would not be surrounded.
            interceptors.append(part.intercept or _pass)
            if part.surround is not None:
                surrounds.append(part.surround)

    def remove(self) -> None:
        """Leave the program alone again."""
        for part in self.parts:
            interceptors.remove(part.intercept or _pass)
            if part.surround is not None:
                surrounds.remove(part.surround)


def join(recorder: Recorder) -> Instruments:
    """Install what the recorder's options ask for; after a graft, so that all see what was grafted."""
    made = Instruments(list(_parts(recorder)))
    made.install()
    return made


def _parts(recorder: Recorder) -> Iterator[Instrument]:
    options = recorder.options
    if options.perturb:
        yield Perturbation(recorder)
    if options.own_gradients:
        yield OwnGradients(recorder)
    if options.operators:
        yield Operators(recorder)
    if options.shadow:
        yield Shadows(recorder)


def _pass(call: Any, phase: str, tree: Any) -> Any:
    return tree
