"""The writer: takes staged records off the caller's path and appends them to segments."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from twinrun.recorder.dtypes import BY_NAME
from twinrun.recorder.index import Entry
from twinrun.recorder.segment import LEAST_HEADER_ROOM, Segment
from twinrun.recorder.staging import ALIGNMENT, Staging
from twinrun.recorder.stats import Moments

SEGMENT_BYTES = 64 << 20
STEP_SPACING_S = 0.25
_SEAL_AFTER_S = 0.7  # leaves time for the seal itself before a second has passed
_POLL_S = 0.1
_WAKE_BYTES = 8 << 20
_WRITE_BYTES = 8 << 20
NO_ROOM = -1


class Event(Protocol):
    """A device's mark that a copy has arrived."""

    def synchronize(self) -> None:
        """Wait for it."""


class Piece(NamedTuple):
    """Staged bytes of a payload; its last piece carries the entry that lists it.

    ``start`` is NO_ROOM for a record without payload; ``reserved`` is what releases the staged
    bytes; ``ready`` is awaited before they are read.
    """

    entry: Entry | None
    start: int = NO_ROOM
    nbytes: int = 0
    reserved: int = 0
    dtype: str = ""
    ready: Event | None = None


class Writer:
    """Owns the thread and the open segment of one process directory.

    ``before_commit`` runs before each seal (process.json must name what an index refers to).
    ``failed`` is told the reason when the disk refuses; everything staged is then let go, so that
    the program never waits for a writer that cannot write. Seals run beside the next segment's
    writes, one at a time and in order.
    """

    def __init__(
        self,
        directory: Path,
        staging: Staging,
        *,
        stats_only: bool,
        before_commit: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._staging = staging
        self._stats_only = stats_only
        self._before_commit = before_commit
        self._failed = failed
        self._queue: deque[Piece] = deque()
        self._bell = threading.Event()
        self._work = threading.Lock()
        self._wake_bytes = min(_WAKE_BYTES, staging.capacity // 8)
        self._pending = 0
        self._idle = False
        self._segment: Segment | None = None
        self._sealing: threading.Thread | None = None
        self._next_index = 0
        self._header_room = LEAST_HEADER_ROOM
        self._opened_at = 0.0
        self._sealed_at = 0.0
        self._step_ended = False
        self._closing = False
        self._moments: Moments | None = None
        self._payload_at = -1  # where in the file the payload at hand begins
        self._thread = threading.Thread(target=self._run, name="twinrun-writer", daemon=True)
        self.alive = True
        self._threaded = _started(self._thread)
        if not self._threaded:
            self._wake_bytes = -1  # the interpreter shuts down: each record may be the last

    def put(self, piece: Piece) -> None:
        """Hand over one staged piece; wakes the thread only for a batch worth waking for."""
        self._queue.append(piece)
        self._pending += piece.nbytes
        if self._idle or self._pending > self._wake_bytes:
            self._pending = 0
            self.wake()

    def wake(self) -> None:
        """Ask for the queue to be worked on now; without a thread the caller does the work."""
        if self._threaded:
            self._bell.set()
        else:
            self.flush()

    def step_ended(self) -> None:
        """A step is over: seal soon."""
        self._step_ended = True

    def flush(self) -> None:
        """Seal everything handed over so far, in the calling thread."""
        with self._work:
            self._drain()
            self._seal()
            self._await_seal()

    def close(self) -> None:
        """Seal the rest and end the thread."""
        self._closing = True
        if self._threaded:
            self._bell.set()
            self._thread.join()
        self.flush()
        self.alive = False

    def forget(self) -> None:
        """In a forked child: let the parent's files go without touching them."""
        self.alive = False
        if self._segment is not None:
            self._segment.forget()

    def _run(self) -> None:
        while not self._closing:
            self._wait()
            self._turn()

    def _wait(self) -> None:
        unsealed = self._segment is not None
        self._idle = not unsealed
        if not self._queue and not self._closing:
            self._bell.wait(_POLL_S if unsealed else None)
        self._bell.clear()
        self._idle = False

    def _turn(self) -> None:
        with self._work:
            self._drain()
            if self._due():
                self._seal()

    def _due(self) -> bool:
        if self._segment is None or self._queue:
            return False
        now = time.monotonic()
        if self._step_ended and now - self._sealed_at >= STEP_SPACING_S:
            return True
        return now - self._opened_at >= _SEAL_AFTER_S

    def _drain(self) -> None:
        """Work on everything that is queued, in batches of one write."""
        while self._queue:
            try:
                if self.alive:
                    self._batch()
                else:
                    self._discard()
            except Exception as error:  # noqa: BLE001 - contained: the program goes on, the capture says why
                self._give_up(error)
        if not self.alive and self._segment is not None:
            segment, self._segment = self._segment, None
            with suppress(OSError):
                segment.abandon()
        self._staging.populate()

    def _batch(self) -> None:
        """Write the queue's next pieces; those that lie side by side leave in one write."""
        segment = self._segment or self._open()
        queue = self._queue
        start = end = reserved = 0
        try:
            while queue and not self._parts(queue[0], start, end):
                entry, at, nbytes, until, dtype, ready = queue.popleft()
                if at >= 0:
                    reserved = until
                    if ready is not None:
                        ready.synchronize()
                    if self._stats_only:
                        self._measure(at, nbytes, dtype)
                    else:
                        if start == end:
                            start = end = at
                        if self._payload_at < 0:
                            self._payload_at = segment.end + end - start
                        end += (nbytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
                if entry is not None:
                    segment.add(entry, self._payload_at, self._result())
                    self._payload_at = -1
                    if segment.header_full or segment.payload + end - start >= SEGMENT_BYTES:
                        break
            segment.write(self._staging.view[start:end])
        finally:
            if reserved:
                self._staging.release(reserved)
        if segment.header_full or segment.payload >= SEGMENT_BYTES:
            self._seal()

    def _parts(self, piece: Piece, start: int, end: int) -> bool:
        """Whether this piece cannot leave in one write with [start, end) of the buffer."""
        if end == start or piece.start < 0:
            return False
        return piece.start != end or piece.ready is not None or end - start >= _WRITE_BYTES

    def _measure(self, start: int, nbytes: int, dtype: str) -> None:
        self._moments = self._moments or Moments()
        if nbytes:
            staged = self._staging.view[start : start + nbytes]
            self._moments.add(torch.frombuffer(staged, dtype=torch.uint8).view(BY_NAME[dtype]))

    def _result(self) -> dict[str, float | int] | None:
        if self._moments is None:
            return None
        moments, self._moments = self._moments, None
        return moments.result()

    def _open(self) -> Segment:
        self._segment = Segment(self._directory, self._next_index, self._header_room)
        self._next_index += 1
        self._opened_at = time.monotonic()
        return self._segment

    def _seal(self) -> None:
        """Begin to seal the open segment; a payload that is half written is never cut."""
        segment = self._segment
        if segment is None or self._payload_at >= 0:
            return
        self._segment = None
        self._header_room = segment.next_room()
        self._step_ended = False
        self._await_seal()
        sealing = threading.Thread(
            target=self._commit, args=(segment,), name="twinrun-seal", daemon=True
        )
        if _started(sealing):
            self._sealing = sealing
        else:
            self._commit(segment)
        self._sealed_at = time.monotonic()

    def _commit(self, segment: Segment) -> None:
        try:
            if not self.alive:
                segment.abandon()
                return
            self._before_commit()
            segment.seal()
        except Exception as error:  # noqa: BLE001 - contained: the program goes on, the capture says why
            with suppress(OSError):
                segment.abandon()
            self._give_up(error)

    def _await_seal(self) -> None:
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None

    def _discard(self) -> None:
        piece = self._queue.popleft()
        if piece.start >= 0:
            self._staging.release(piece.reserved)

    def _give_up(self, error: Exception) -> None:
        if self.alive:
            self.alive = False
            self._failed(f"recording stopped: {type(error).__name__}: {error}")


def _started(thread: threading.Thread) -> bool:
    """Start it; False in an interpreter that is shutting down, which starts no threads."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
