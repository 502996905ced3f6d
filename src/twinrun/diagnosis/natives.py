"""What a boundary would have passed, had no graft replaced it: recorded beside what it did pass."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from twinrun.recorder import flatten
from twinrun.recorder.core import Recorder
from twinrun.recorder.intercept import interceptors
from twinrun.recorder.scene import OpenCall

NATIVE = ":native"
"""What a record's name ends with, after the name of the port."""


def join(recorder: Recorder) -> None:
    """Called where a process begins to be observed, after it has joined its graft."""
    Natives(recorder, recorder.options.natives).install()


class Natives:
    """Records ``<module>:<port>:native`` for every module that one of the globs names."""

    def __init__(self, recorder: Recorder, globs: str) -> None:
        self._recorder = recorder
        self._globs = tuple(glob.strip() for glob in globs.split(",") if glob.strip())
        self._known: dict[str, bool] = {}

    def install(self) -> None:
        """Look before any other interceptor replaces something."""
        interceptors.insert(0, self.intercept)

    def intercept(self, call: OpenCall, phase: str, tree: Any) -> Any:
        """Record, and pass on what came."""
        if not call.recompute and self._wanted(call.entry.module):
            try:
                self._record(call, phase, tree)
            except Exception as error:  # noqa: BLE001 - the program must run whatever befalls its observer
                self._recorder.problem(f"what a graft replaces was not recorded: {error!r}")
        return tree

    def _wanted(self, module: str) -> bool:
        known = self._known.get(module)
        if known is None:
            known = any(module == glob or fnmatchcase(module, glob) for glob in self._globs)
            self._known[module] = known
        return known

    def _record(self, call: OpenCall, phase: str, tree: Any) -> None:
        entry = call.entry
        if phase == "input":
            found = flatten.arguments(entry.arguments, *tree)
        else:
            found = flatten.flatten(tree, "output")
        for port, tensor in found:
            self._recorder.observe(
                f"{entry.module}:{port}{NATIVE}",
                tensor,
                role="native",
                **call.facts,
                begun=call.begun,
            )
