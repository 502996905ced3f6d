"""A thread of its own for calls that block until another process comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from twinrun.errors import PeerError
from twinrun.grafting.patience import Patience


class Job:
    """One call under way."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self._call()
        except Exception as error:  # noqa: BLE001 - it is raised again where the job is waited for
            self.error = error
        self.done = True

    def wait(self, seconds: float, check: Callable[[], None], what: str) -> Any:
        """The call's result, or what it raised; PeerError when it takes longer. ``check`` raises to give up."""
        patience = Patience(seconds, check)
        while not self.done:
            if not patience.pause():
                raise PeerError(f"{what} took more than {seconds:g} s")
        if self.error is not None:
            raise self.error
        return self.result


class Lane:
    """Runs jobs one after the other on a daemon thread, begun with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, call: Callable[[], Any]) -> Job:
        """Have ``call`` made; returns at once."""
        job = Job(call)
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return job

    def end(self) -> None:
        """End the thread after what it has to do."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
