"""The writing end of a pipe: straight from the tensor while the peer reads, staged when it is elsewhere."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Protocol

from twinrun.errors import PeerError
from twinrun.grafting.memory import Run
from twinrun.grafting.message import Message, Staged
from twinrun.grafting.patience import Patience

GRACE_S = 0.05
"""How long a peer that reads nothing is waited for before the rest is staged."""

FOREVER_S = 1e9

_WHOLE_BYTES = 4096
"""Heads up to this size go into a pipe in one piece, or wait."""


class Pipe(Protocol):
    """One direction of bytes; ``write`` and ``read`` move what they can and never block.

    After a ``write`` the memory belongs to the pipe until all of it has moved or ``withdraw`` was called,
    which tells how many more bytes went.
    """

    kind: str

    def write(self, address: int, nbytes: int) -> int: ...

    def withdraw(self) -> int: ...

    def read(self, address: int, nbytes: int) -> int: ...

    def close(self) -> None: ...


class Buffer:
    """How many bytes may wait in this process for peers that are elsewhere."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> bool:
        """Reserve ``nbytes``; a single message that is larger than all may pass when nothing waits."""
        with self._lock:
            if self.used_bytes and self.used_bytes + nbytes > self.limit_bytes:
                return False
            self.used_bytes += nbytes
            return True

    def force(self, nbytes: int) -> None:
        """Count ``nbytes`` that are held already, also above the limit."""
        with self._lock:
            self.used_bytes += nbytes

    def free(self, nbytes: int) -> None:
        """Give ``nbytes`` back."""
        with self._lock:
            self.used_bytes -= nbytes


class Outlet:
    """Sends messages to one peer in order.

    ``open_pipe`` is called at the first message, on the thread that writes it (it may wait for the
    peer's answer). ``check`` raises when the peer has gone or the graft has ended. Errors of the staging thread
    surface at the next ``send``. ``timeout_s`` bounds each wait without progress (PeerError).
    """

    def __init__(
        self,
        open_pipe: Callable[[], Pipe],
        buffer: Buffer,
        check: Callable[[], None],
        timeout_s: float,
    ) -> None:
        self._open_pipe = open_pipe
        self.pipe: Pipe | None = None
        self._buffer = buffer
        self._check = check
        self._timeout_s = timeout_s
        self._queue: deque[Staged] = deque()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        """held by the one thread that is writing a message"""
        self._pumping = False
        self._error: PeerError | None = None

    def send(self, message: Message) -> None:
        """Write ``message``, or copy what the peer does not take now; its tensors may change then."""
        if self._error is not None:
            raise self._error
        if self._queue or not self._writing.acquire(blocking=False):
            self._reserve(message.nbytes)
            self._enqueue(Staged(message.nbytes, message.runs()))
            return
        try:
            rest = self._send(message)
            if rest is not None:
                # Before the pipe is let go of: nothing may come between the two halves.
                self._enqueue(rest, first=True)
        finally:
            self._writing.release()

    def _send(self, message: Message) -> Staged | None:
        put = getattr(self.pipe, "put", None)
        head = message.head
        if put is None or len(head) > _WHOLE_BYTES or not put(head):
            return self._write(message.runs(), message.nbytes, may_stage=True)
        if len(head) == message.nbytes:
            return None
        return self._write(message.payload_runs(), message.nbytes - len(head), may_stage=True)

    def send_later(self, message: Message) -> None:
        """Stage ``message`` and return at once, whatever the buffer's limit (called off the main thread)."""
        self._buffer.force(message.nbytes)
        self._enqueue(Staged(message.nbytes, message.runs()))

    def drained(self) -> bool:
        """Whether nothing waits to be taken."""
        return not self._pumping

    def close(self) -> None:
        """Close the pipe; what is staged is dropped."""
        if self.pipe is not None:
            self.pipe.close()

    def _reserve(self, nbytes: int) -> None:
        patience = Patience(self._timeout_s, self._check)
        while not self._buffer.take(nbytes):
            if not patience.pause():
                raise PeerError(
                    f"the staging buffer is full ({self._buffer.used_bytes >> 20} MiB) and nobody took "
                    f"anything from it for {self._timeout_s:g} s",
                    do="raise --graft-buffer, or bring the two programs' orders closer together",
                )

    def _enqueue(self, staged: Staged, *, first: bool = False) -> None:
        with self._lock:
            if first:
                self._queue.appendleft(staged)
            else:
                self._queue.append(staged)
            if self._pumping:
                return
            self._pumping = True
        threading.Thread(target=self._pump, name="twinrun-graft-pump", daemon=True).start()

    def _pump(self) -> None:
        while True:
            with self._writing:
                with self._lock:
                    if not self._queue:
                        self._pumping = False
                        return
                    staged = self._queue.popleft()
                try:
                    self._write(staged.runs(), staged.nbytes, may_stage=False)
                except PeerError as error:
                    self._error = error
                except ValueError:
                    # The pipe was closed under the write: this process leaves the graft.
                    self._error = PeerError("this graft is closed")
            self._buffer.free(staged.nbytes)

    def _write(self, parts: Iterator[Run], nbytes: int, *, may_stage: bool) -> Staged | None:
        """Write all of ``parts``; what was staged instead, once the peer reads nothing for a while."""
        patience = Patience(self._timeout_s if may_stage else FOREVER_S, self._check)
        if self.pipe is None:
            self.pipe = self._open_pipe()
        try:
            return self._push(self.pipe, parts, nbytes, patience, may_stage)
        finally:
            self.pipe.withdraw()

    def _push(
        self, pipe: Pipe, parts: Iterator[Run], nbytes: int, patience: Patience, may_stage: bool
    ) -> Staged | None:
        for address, count, keep in parts:
            while count:
                moved = pipe.write(address, count)
                late = not moved and may_stage and patience.waited_s > GRACE_S
                if late and self._buffer.take(nbytes):
                    moved = pipe.withdraw()
                    if not moved:
                        return Staged(nbytes, chain([(address, count, keep)], parts))
                    self._buffer.free(nbytes)
                if moved:
                    address, count, nbytes = address + moved, count - moved, nbytes - moved
                    patience.progress()
                elif not patience.pause():
                    raise PeerError(
                        f"nothing was taken for {self._timeout_s:g} s and the staging buffer is full"
                    )
        return None
