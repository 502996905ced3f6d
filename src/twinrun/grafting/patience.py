"""Waiting for another process: yield first, then sleep; bounded by a deadline."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

_YIELDS = 400
_SHORT_S = 50e-6
_LONG_S = 1e-3

# Through ctypes the interpreter's lock is free while the processor is offered to others.
_sched_yield = ctypes.CDLL(None).sched_yield


class Patience:
    """Paces one wait. ``check`` is called at every pause and raises to end the wait."""

    def __init__(self, seconds: float, check: Callable[[], None]) -> None:
        self._check = check
        self._seconds = seconds
        self.began = time.monotonic()
        self._turns = 0

    @property
    def waited_s(self) -> float:
        """Seconds since the start, or since the last sign of progress."""
        return time.monotonic() - self.began

    def progress(self) -> None:
        """Something moved: the time limit starts anew."""
        if self._turns:
            self._turns = 0
            self.began = time.monotonic()

    def pause(self) -> bool:
        """Wait a moment; False once the limit has passed without progress."""
        self._turns += 1
        if self._turns <= _YIELDS:
            _sched_yield()
            if self._turns % 50:
                return True
        self._check()
        waited = self.waited_s
        if waited > self._seconds:
            return False
        if self._turns > _YIELDS:
            time.sleep(_SHORT_S if waited < 0.05 else _LONG_S)
        return True
