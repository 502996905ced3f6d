"""POSIX semaphores in memory that processes share, through the C library.

They are what makes one process's writes visible to another on any processor: ``sem_post`` releases
and ``sem_wait`` acquires. A waiter spins a little, because a peer on another core is usually there
within microseconds, then yields, then sleeps in the kernel, because ranks may outnumber cores.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time

# One cache line each, so that two waiters do not fight over one.
SEMAPHORE_BYTES = 64
_SLEEP_S = 0.2
_YIELDS = 8


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def why_not() -> str | None:
    """Why this system has no such semaphores, or None."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return f"it needs 64-bit Linux, this is {sys.platform}"
    missing = [name for name in ("sem_init", "sem_post", "sem_timedwait") if not _has(name)]
    return f"the C library has no {missing[0]}" if missing else None


def _has(name: str) -> bool:
    return hasattr(ctypes.CDLL(None), name)


class Semaphores:
    """Semaphores at ``address``, one every ``SEMAPHORE_BYTES``; the memory is the caller's."""

    def __init__(self, address: int, spins: int) -> None:
        # PyDLL keeps the interpreter's lock: these two never block and giving it up costs more.
        quick, slow = ctypes.PyDLL(None), ctypes.CDLL(None, use_errno=True)
        self._init, self._wait = slow.sem_init, slow.sem_timedwait
        self._try, self._post = quick.sem_trywait, quick.sem_post
        for function in (self._try, self._post):
            function.argtypes = (ctypes.c_void_p,)
        self._init.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
        self._wait.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Timespec))
        self._address = address
        self._spins = spins

    def prepare(self, count: int) -> None:
        """Set ``count`` semaphores to zero; by one process, before any other uses them."""
        for index in range(count):
            if self._init(self._at(index), 1, 0) != 0:
                raise OSError(ctypes.get_errno(), "sem_init")

    def post(self, index: int) -> None:
        """Let one waiter through, now or when it comes."""
        self._post(self._at(index))

    def wait(self, index: int, timeout_s: float) -> bool:
        """Wait for one post; False where none came in time."""
        address, trial = self._at(index), self._try
        for _ in range(self._spins):
            if trial(address) == 0:
                return True
        for _ in range(_YIELDS):
            os.sched_yield()
            if trial(address) == 0:
                return True
        return self._sleep(address, time.monotonic() + timeout_s)

    def _sleep(self, address: int, deadline: float) -> bool:
        """Sleep in short turns, so that signals are seen and a changed clock does no harm."""
        while True:
            now = time.time() + _SLEEP_S
            until = _Timespec(int(now), int(now % 1 * 1e9))
            if self._wait(address, ctypes.byref(until)) == 0:
                return True
            code = ctypes.get_errno()
            if code not in (errno.ETIMEDOUT, errno.EINTR):
                raise OSError(code, "sem_timedwait")
            if time.monotonic() >= deadline:
                return False

    def _at(self, index: int) -> int:
        return self._address + index * SEMAPHORE_BYTES
