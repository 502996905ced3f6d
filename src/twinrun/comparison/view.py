"""What a comparison needs of a capture; `recorder.reader.Capture` fits, and so does a test's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from twinrun.recorder.record import ProcessInfo, Record, RunInfo


class View(Protocol):
    """A run that can be read. Tensors are CPU tensors over memory that `release` may drop."""

    @property
    def path(self) -> str: ...
    @property
    def run(self) -> RunInfo: ...
    @property
    def processes(self) -> Sequence[ProcessInfo]: ...
    @property
    def records(self) -> Sequence[Record]: ...
    def tensor(self, record: Record) -> torch.Tensor: ...
    def release(self, record: Record) -> None: ...
    def close(self) -> None: ...
