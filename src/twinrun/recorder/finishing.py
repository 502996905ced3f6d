"""What is final only when a step or a capture ends: gradients that no optimizer took."""

from __future__ import annotations

import functools
from collections.abc import Callable

from twinrun.recorder.core import Recorder


def finish_before(
    recorder: Recorder, *, step: Callable[[], None], close: Callable[[], None]
) -> None:
    """Have ``step`` run before this recorder marks a step, and ``close`` before it closes."""
    for name, finish in (("mark_step", step), ("close", close)):
        setattr(recorder, name, _preceded(getattr(recorder, name), recorder, finish))


def _preceded(
    method: Callable[[], None], recorder: Recorder, finish: Callable[[], None]
) -> Callable[[], None]:
    @functools.wraps(method)
    def preceded() -> None:
        try:
            finish()
        except Exception as error:  # noqa: BLE001 - the program must run whatever befalls its observer
            recorder.problem(f"the end of a step was not observed: {error!r}")
        method()

    return preceded
