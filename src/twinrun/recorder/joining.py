"""A process joins the run that its environment names: it starts to observe."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch

from twinrun.env import variables as V
from twinrun.errors import CaptureExistsError
from twinrun.recorder import boundary
from twinrun.recorder.core import Recorder, activate
from twinrun.recorder.options import Options
from twinrun.recorder.processes import leave_note
from twinrun.recorder.rank import standing
from twinrun.recorder.rundir import RUN, create_run

LEAST_TORCH = (2, 9)


def join() -> bool:
    """Open a recorder on ``TWINRUN_OUT`` and observe every module; whether this process joined.

    A torch that is too old is left alone, with a note. CaptureError where the directory is no
    capture.
    """
    directory = V.OUT.get()
    if directory is None:
        return False
    if _version(torch.__version__) < LEAST_TORCH:
        leave_note("aside", reason=f"torch {torch.__version__} is older than 2.9")
        return False
    _make(directory)
    recorder = Recorder(directory)
    activate(recorder)
    boundary.install(everything=recorder)
    if V.GRAFT_ROLE.get() is not None:
        # By name: the rooms above are not this one's to import.
        import_module("twinrun.grafting.joining").join(recorder)
    if recorder.options.natives:
        import_module("twinrun.diagnosis.natives").join(recorder)
    if recorder.options.instruments:
        # After grafting: a shadow is given what was grafted.
        import_module("twinrun.diagnosis.instruments").join(recorder)
    leave_note("joined", rank=standing().rank)
    return True


def _make(directory: Path) -> None:
    """Make the run directory where it is not: on another node, with the options that came along."""
    options = V.OPTIONS.get()
    if options is None or (directory / RUN).exists():
        return
    chosen = Options.from_json(json.loads(options))
    # A sibling rank may be first: then its directory is there now, and is joined.
    with suppress(CaptureExistsError):
        create_run(directory, command=sys.argv, options=chosen, origin="capture")


def _version(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
