"""One process's directory in the run directory, and its ``process.json``."""

from __future__ import annotations

import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from twinrun.recorder.files import write_json
from twinrun.recorder.rank import Standing, standing
from twinrun.recorder.rundir import FORMAT, PROCESSES

_MOST_NOTES = 200
_LONGEST_NOTE = 2000


class Process:
    """What is known about the observed process, kept until ``save`` writes it down.

    The directory is made by the first ``save``; nothing touches the disk before. Thread-safe.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._directory: Path | None = None
        self._changed = True
        self._overflow = 0
        self.standing: Standing = standing()
        self.roots: list[dict[str, Any]] = []
        self.mesh: dict[str, tuple[int, int]] = {}
        self.notes: dict[str, None] = {}
        self.problems: dict[str, None] = {}
        self.reports: dict[str, Any] = {}
        self.started = time.time()

    @property
    def directory(self) -> Path:
        """Its own directory, made when it is first asked for. OSError where it cannot be."""
        if self._directory is None:
            self._directory = _fresh_directory(self._run / PROCESSES)
        return self._directory

    @property
    def opened(self) -> bool:
        """Whether the directory was made."""
        return self._directory is not None

    def look_up_rank(self) -> None:
        """Follow torch.distributed when it is initialised; its answer outlives its end."""
        seen, known = standing(), self.standing
        if seen == known or (known.source == "torch.distributed" and seen.source != known.source):
            return
        if known.source == "torch.distributed":
            self.tell(self.problems, f"the rank changed from {known.rank} to {seen.rank}")
        self.standing = seen
        self._changed = True

    def add_root(self, label: str, module_class: str, facts: Mapping[str, Any]) -> int:
        """Append to the root table; the index of the new row."""
        with self._lock:
            self.roots.append({"label": label, "class": module_class, **facts})
            self._changed = True
            return len(self.roots) - 1

    def tell(self, told: dict[str, None], text: str) -> None:
        """Add to notes or problems, once each, within a bound."""
        text = text[:_LONGEST_NOTE].encode("utf-8", "backslashreplace").decode()
        with self._lock:
            if text in told:
                return
            self._changed = True
            if len(told) >= _MOST_NOTES:
                self._overflow += 1
                return
            told[text] = None

    def set_mesh(self, mesh: Mapping[str, tuple[int, int]]) -> None:
        """This process's coordinates on named axes."""
        with self._lock:
            self.mesh = {axis: (place[0], place[1]) for axis, place in mesh.items()}
            self._changed = True

    def report(self, key: str, value: object) -> None:
        """Keep a JSON value under ``reports``."""
        with self._lock:
            self.reports[key] = value
            self._changed = True

    def save(self, *, seconds: float, ended: bool = False, always: bool = False) -> None:
        """Write ``process.json`` where anything changed. OSError where the disk refuses."""
        with self._lock:
            if not (self._changed or ended or always):
                return
            self._changed = False
            write_json(self.directory / "process.json", self._facts(seconds, ended))

    def _facts(self, seconds: float, ended: bool) -> dict[str, Any]:
        notes = list(self.notes)
        if self._overflow:
            notes.append(f"{self._overflow} more notes or problems were left out")
        return {
            "format": FORMAT,
            "pid": os.getpid(),
            "rank": self.standing.rank,
            "rank_source": self.standing.source,
            "world_size": self.standing.world_size,
            "host": socket.gethostname(),
            "argv": [_printable(word) for word in getattr(sys, "orig_argv", sys.argv)],
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "started": self.started,
            "roots": self.roots,
            "mesh": self.mesh,
            "notes": notes,
            "problems": list(self.problems),
            "reports": self.reports,
            "seconds": round(seconds, 6),
            "ended": ended,
        }


def _printable(text: str) -> str:
    return text[:_LONGEST_NOTE].encode("utf-8", "backslashreplace").decode()


def _fresh_directory(parent: Path) -> Path:
    parent.mkdir(exist_ok=True)
    while True:
        # Not the random module: its state belongs to the observed program.
        directory = parent / os.urandom(4).hex()
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory
