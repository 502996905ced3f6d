"""Opening a capture from inside a program: ``with tr.capture("runs/a"): ...``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from twinrun.errors import UsageError
from twinrun.recorder.core import Recorder
from twinrun.recorder.options import Options
from twinrun.recorder.rundir import create_run


def open_for_block(
    path: str | os.PathLike[str], overwrite: bool, options: Mapping[str, Any]
) -> Recorder:
    """A Recorder on a new run directory, or on the one that another rank of this job just made."""
    try:
        chosen = Options(**options)
    except TypeError as error:
        known = ", ".join(Options.__dataclass_fields__)
        raise UsageError(f"tr.capture: {error}", expected=f"options among {known}") from None
    if chosen.instruments:
        raise UsageError(
            "tr.capture has no shadow, operators, perturb or own_gradients",
            do="start the program with twinrun run",
        )
    command = [sys.executable, *sys.argv]
    made = create_run(path, command=command, options=chosen, origin="capture", overwrite=overwrite)
    recorder = Recorder(made)
    # At once: a sibling rank, or a second block, must see that this process takes part.
    recorder.announce()
    return recorder
