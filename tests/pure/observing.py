"""Observe modules inside a test as `twinrun run` would, and read back what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twinrun.recorder import boundary
from twinrun.recorder.core import Recorder, activate, deactivate
from twinrun.recorder.options import Options
from twinrun.recorder.reader import Capture, open_capture
from twinrun.recorder.record import Record
from twinrun.recorder.rundir import create_run


@contextmanager
def observing(path: Path, everything: bool = True, **options: Any) -> Iterator[Recorder]:
    """Record into ``path`` while the block runs; ``options`` are those of ``Options``."""
    options.setdefault("taps", "modules")
    options.setdefault("buffer_bytes", 1 << 20)
    create_run(path, command=["test"], options=Options(**options), origin="capture")
    recorder = Recorder(path)
    activate(recorder)
    boundary.install(everything=recorder if everything else None)
    try:
        yield recorder
    finally:
        deactivate(recorder)
        recorder.close()


def read(path: Path) -> Capture:
    """The capture that the block left."""
    return open_capture(str(path))


def names(path: Path, **fields: Any) -> list[str]:
    """The names of records with these field values, in order."""
    return [r.name for r in records(path, **fields)]


def records(path: Path, **fields: Any) -> list[Record]:
    """The records with these field values, in order."""
    held = read(path).records
    return [r for r in held if all(getattr(r, key) == value for key, value in fields.items())]


def value(path: Path, name: str, step: int = 0, occurrence: int = 0) -> torch.Tensor:
    """The recorded value of one point."""
    capture = read(path)
    found = [r for r in capture.records if r.point == (step, name, occurrence)]
    assert len(found) == 1, f"{name}: {[r.point for r in found]}"
    return capture.tensor(found[0]).clone()


class Block(nn.Module):
    """A residual block of two linears, called with a keyword."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        y = self.down(torch.relu(self.up(x)))
        return x + (y if scale is None else y * scale)


class Stack(nn.Module):
    """An embedding, a list of blocks, and a head."""

    def __init__(self, depth: int = 2, width: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, width)
        self.layers = nn.ModuleList([Block(width) for _ in range(depth)])
        self.head = nn.Linear(width, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)
