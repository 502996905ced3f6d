"""A process's part in a run: its directory, its way to the disk, what it tells, its end."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from twinrun.recorder.budget import Budget
from twinrun.recorder.exits import close_at_exit, follow_forks, no_exit
from twinrun.recorder.options import Options
from twinrun.recorder.outlet import Outlet
from twinrun.recorder.process import Process

Mesh = Mapping[str, tuple[int, int]]


class Part:
    """What a Recorder is beside recording; nothing is made on the disk before it is needed."""

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self.options = options
        self.seconds = 0.0
        self._keeps_values = options.mode == "values"
        self._begin()
        follow_forks(self)

    def _begin(self) -> None:
        """State that a forked child makes anew."""
        self._lock = threading.RLock()
        self._open = True
        self._busy = (
            False  # an observation goes on; the lock alone would let its own thread in again
        )
        self._process = Process(self.path)
        most = self.options.max_bytes
        self._budget = Budget(self.path, most) if most else None
        self._outlet: Outlet | None = None

    @property
    def directory(self) -> Path:
        """The process's own directory, made when it is first asked for. OSError where it cannot be."""
        return self._process.directory

    def note(self, text: str) -> None:
        """Something worth knowing, once."""
        self._process.tell(self._process.notes, text)

    def problem(self, text: str) -> None:
        """Something that makes the capture incomplete, once."""
        self._process.tell(self._process.problems, text)

    def report(self, key: str, value: object) -> None:
        """Keep a JSON value in process.json under ``reports``."""
        self._process.report(key, value)

    def set_mesh(self, mesh: Mesh) -> None:
        """This process's coordinates, for records that name none."""
        self._process.set_mesh(mesh)

    def announce(self) -> None:
        """Write process.json now: this process was reached, whatever it will record."""
        try:
            self._save()
            close_at_exit(self)
        except OSError as error:
            self.problem(f"process.json was not written: {error}")

    def _open_outlet(self) -> Outlet:
        self._outlet = Outlet(
            self._process.directory,
            buffer_bytes=self.options.buffer_bytes,
            stats_only=not self._keeps_values,
            before_commit=self._save,
            failed=self._failed,
            note=self.note,
        )
        close_at_exit(self)
        return self._outlet

    def _save(self) -> None:
        self._process.look_up_rank()
        self._process.save(seconds=self.seconds)

    def _failed(self, why: str) -> None:
        """The disk refused; told by one of the writer's threads."""
        self._open = False
        self.problem(why)
        with suppress(OSError):
            self._process.save(seconds=self.seconds)

    def flush(self) -> None:
        """Seal what was recorded so far and bring process.json up to date."""
        with self._lock:
            if self._busy:
                return  # a signal's handler, in the middle of an observation
            if self._outlet is not None and self._outlet.alive:
                self._outlet.writer.flush()
            if self._process.opened:
                self.announce()

    def close(self) -> None:
        """Seal the rest and end this process's part; a second call does nothing.

        From a signal's handler in the middle of an observation it does nothing either: the buffer
        is in use. The process's exit closes it then.
        """
        with self._lock:
            if self._busy:
                return
            no_exit(self)
            self._open = False
            outlet, self._outlet = self._outlet, None
            if outlet is not None:
                outlet.close()
            if self._process.opened:
                self._end()

    def _end(self) -> None:
        # Where the disk refuses, process.json keeps saying "not ended", and a reader reports it.
        with suppress(OSError):
            if self._budget is not None:
                self._budget.close()
            self._process.save(seconds=self.seconds, ended=True)

    def start_afresh(self) -> None:
        """In a forked child: a directory, a buffer and a thread of its own, at its first record."""
        roots, outlet = self._process.roots, self._outlet
        if outlet is not None:
            outlet.forget()
        self._begin()
        self._process.roots = list(roots)
