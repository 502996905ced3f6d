"""What a process does on arrival: wait for torch, offer `twinrun`, and watch which children it starts.

Loaded by path from the boot file, before anything of Twinrun's is importable, so it imports nothing
but `os` and `sys` until torch or a child process calls for more.
"""
# ruff: noqa: PTH100, PTH118, PTH120 - pathlib would cost every process 5 ms, torch or no torch

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_CHILD_EVENTS = frozenset({"subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn"})


class OwnFinder:
    """Serves `twinrun` from the tree this file belongs to, whatever else is installed.

    The search path stays as it was: Twinrun's site-packages would shadow the program's own torch.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "twinrun":
            return None
        from importlib.util import spec_from_file_location

        return spec_from_file_location(
            name, os.path.join(_PACKAGE, "__init__.py"), submodule_search_locations=[_PACKAGE]
        )


class TorchFinder:
    """Lets every other finder find torch, and acts once when its import has ended."""

    def __init__(self) -> None:
        self.busy = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "torch" or self.busy:
            return None
        from importlib.util import find_spec

        self.busy = True
        try:
            spec = find_spec(name)
        finally:
            self.busy = False
        if spec is not None and spec.loader is not None:
            _act_after(spec.loader)
        return spec


def _act_after(loader: Any) -> None:
    """Make this one loader call `torch_arrived` after it has executed its module."""
    execute = loader.exec_module

    def exec_module(module: Any) -> None:
        del loader.exec_module
        execute(module)
        torch_arrived()

    loader.exec_module = exec_module


def torch_arrived() -> None:
    """Start observing; a failure becomes a note, never the program's."""
    try:
        from twinrun.recorder.joining import join

        join()
    except Exception as error:  # noqa: BLE001 - the program must run whatever befalls its observer
        _note_failure(error)


def _note_failure(error: Exception) -> None:
    from traceback import format_exception

    from twinrun.recorder.processes import leave_note

    leave_note(
        "aside", reason=f"observing could not start: {error!r}", trace=format_exception(error)
    )


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _CHILD_EVENTS:
        return
    try:
        from twinrun.recorder.processes import child_starts

        child_starts(event, arguments)
    except Exception:  # noqa: BLE001 - an audit hook that raises forbids what it watches
        pass


def arrive() -> None:
    """Install the finders and the audit hook; a process does this once."""
    sys.meta_path.insert(0, OwnFinder())
    sys.addaudithook(_on_event)
    if "torch" in sys.modules:
        torch_arrived()
    else:
        sys.meta_path.insert(0, TorchFinder())
