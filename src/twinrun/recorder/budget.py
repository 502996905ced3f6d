"""``--max-bytes``: one bound on a whole run directory, shared by its processes on one host."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

_GRANT = 16 << 20
_LINE_BYTES = 512
_FILE = ".budget"


class Budget:
    """Hands out bytes under a bound; processes draw grants from a locked counter in the directory.

    ``take`` is called under the recorder's lock. What a process has drawn and not used when it
    ends goes back with ``close``.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._path = directory / _FILE
        self._most = max_bytes
        self._left = 0
        self.spent = False

    def take(self, nbytes: int) -> bool:
        """Whether a record of ``nbytes`` still fits; once one does not, none does. OSError."""
        wanted = nbytes + _LINE_BYTES
        if self._left < wanted and not self.spent:
            self._left += self._draw(wanted - self._left)
        if self.spent or self._left < wanted:
            self.spent = True
            return False
        self._left -= wanted
        return True

    def _draw(self, needed: int) -> int:
        granted = 0

        def draw(used: int) -> int:
            nonlocal granted
            free = self._most - used
            granted = min(free, max(needed, _GRANT)) if free >= needed else 0
            return used + granted

        self._update(draw)
        return granted

    def _update(self, change: Callable[[int], int]) -> None:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            text = os.pread(handle, 32, 0)
            used = int(text) if text.strip().isdigit() else 0
            os.pwrite(handle, f"{change(used):<31}\n".encode(), 0)
        finally:
            os.close(handle)

    def close(self) -> None:
        """Give back what was not used."""
        if self._left:
            left, self._left = self._left, 0
            self._update(lambda used: max(0, used - left))
