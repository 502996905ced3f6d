"""A capture of which only some records are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from twinrun.comparison.view import View
from twinrun.recorder.record import ProcessInfo, Record, RunInfo


class Selection:
    """The records of ``view`` that ``wanted`` takes; everything else is the view's own."""

    def __init__(self, view: View, wanted: Callable[[Record], bool]) -> None:
        self._view = view
        self.records: Sequence[Record] = [one for one in view.records if wanted(one)]

    @property
    def path(self) -> str:
        """Where the capture lies."""
        return self._view.path

    @property
    def run(self) -> RunInfo:
        """The whole run's own facts."""
        return self._view.run

    @property
    def processes(self) -> Sequence[ProcessInfo]:
        """The whole run's processes."""
        return self._view.processes

    def tensor(self, record: Record) -> torch.Tensor:
        """As the view's."""
        return self._view.tensor(record)

    def release(self, record: Record) -> None:
        """As the view's."""
        self._view.release(record)

    def close(self) -> None:
        """The view stays open: it belongs to whoever opened it."""
