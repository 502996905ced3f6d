"""Why an instrument leaves a module alone."""

from __future__ import annotations

from twinrun.recorder.core import Recorder

MOST = 500


class Refusal(Exception):
    """The module cannot be looked at in this way; its text is the reason.

    ``lasting``: every later call of the module would be refused, too.
    """

    def __init__(self, reason: str, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Refused:
    """The modules that one instrument left alone, with the first reason of each.

    Kept in ``process.json`` under ``reports``: ``{key: {"modules": {path: reason}, "left_out": n}}``.
    """

    def __init__(self, recorder: Recorder, key: str) -> None:
        self._recorder = recorder
        self._key = key
        self._told: dict[str, str] = {}
        self._left_out: set[str] = set()
        self._lasting: set[str] = set()

    def __contains__(self, module: str) -> bool:
        """Whether it was refused for good."""
        return module in self._lasting

    def add(self, module: str, reason: str, lasting: bool = True) -> None:
        """Note that ``module`` was left alone; the first reason stays."""
        if lasting:
            self._lasting.add(module)
        if module in self._told or module in self._left_out:
            return
        if len(self._told) < MOST:
            self._told[module] = reason[:300]
        else:
            self._left_out.add(module)
        self._recorder.report(
            self._key, {"modules": dict(self._told), "left_out": len(self._left_out)}
        )
