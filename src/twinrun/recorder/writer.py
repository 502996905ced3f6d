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
from twinrun.recorder.segment import Segment
from twinrun.recorder.staging import Room, Staging
from twinrun.recorder.stats import Moments

SEGMENT_BYTES = 64 << 20
SEAL_AFTER_S = 1.0
STEP_SPACING_S = 0.25
_POLL_S = 0.02
_WAKE_BYTES = 1 << 20
_WRITE_BYTES = 8 << 20


class Event(Protocol):
    """A device's mark that a copy has arrived."""

    def synchronize(self) -> None:
        """Wait for it."""


class Piece(NamedTuple):
    """Staged bytes of a payload; its last piece carries the entry that lists it.

    A record without payload has an entry and no room. ``dtype`` is what statistics are made of,
    ``ready`` is awaited before the bytes are read.
    """

    entry: Entry | None
    room: Room | None = None
    nbytes: int = 0
    dtype: str | None = None
    ready: Event | None = None


class Writer:
    """Owns the thread and the open segment of one process directory.

    ``before_commit`` runs before each seal (process.json must name what an index refers to);
    ``failed`` is told once, with the reason, when the disk refuses; everything staged is then
    let go so that the program never waits for a writer that cannot write.
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
        self._idle = False
        self._pending = 0
        self._segment: Segment | None = None
        self._next_index = 0
        self._header_room = 64 << 10
        self._oldest = 0.0
        self._sealed_at = 0.0
        self._step_ended = False
        self._closing = False
        self._moments: Moments | None = None
        self._payload_at: int | None = None  # where in the file the payload at hand begins
        self.alive = True
        self.threaded = False
        self._thread = threading.Thread(target=self._run, name="twinrun-writer", daemon=True)

    def start(self) -> None:
        """Start the thread; in an interpreter that is shutting down the caller does its work."""
        try:
            self._thread.start()
            self.threaded = True
        except RuntimeError:
            self.threaded = False

    def put(self, piece: Piece) -> None:
        """Hand over one staged piece; wakes the thread only for a batch worth waking for."""
        self._queue.append(piece)
        self._pending += piece.nbytes
        if self._idle or self._pending > _WAKE_BYTES:
            self._pending = 0
            self.wake()

    def wake(self) -> None:
        """Ask for the queue to be worked on now."""
        if self.threaded:
            self._bell.set()
        else:
            self._turn()

    def step_ended(self) -> None:
        """A step is over: seal soon."""
        self._step_ended = True

    def flush(self) -> None:
        """Seal everything handed over so far, in the calling thread."""
        with self._work:
            self._drain()
            self._seal()

    def close(self) -> None:
        """Seal the rest and end the thread."""
        self._closing = True
        if self.threaded and self._thread is not threading.current_thread():
            self._bell.set()
            self._thread.join()
        self.flush()
        self.alive = False

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
        return now - self._oldest >= SEAL_AFTER_S

    def _drain(self) -> None:
        """Work on everything that is queued, in batches of one write."""
        while self._queue:
            if not self.alive:
                self._discard()
                continue
            try:
                self._batch()
            except Exception as error:  # noqa: BLE001 - contained: the program goes on, the capture says why
                self._give_up(error)
        self._staging.populate()

    def _batch(self) -> None:
        """Write the queue's next pieces; those that lie side by side leave in one write."""
        segment = self._segment or self._open()
        start = end = span = 0
        try:
            while self._queue and not self._parts(self._queue[0], start, end):
                piece = self._queue.popleft()
                if piece.room is not None:
                    start, end = (start, end) if end > start else (piece.room.start,) * 2
                    span += piece.room.span
                end += self._take(segment, piece, segment.end + end - start)
                if self._full(segment, end - start):
                    break
            segment.write(self._staging.view[start:end])
        finally:
            if span:
                self._staging.release(span)
        if self._full(segment, 0):
            self._seal()

    def _parts(self, piece: Piece, start: int, end: int) -> bool:
        """Whether this piece cannot leave in one write with [start, end) of the buffer."""
        if end == start or piece.room is None:
            return False
        return piece.room.start != end or piece.ready is not None or end - start >= _WRITE_BYTES

    def _full(self, segment: Segment, more: int) -> bool:
        if self._payload_at is not None:
            return False  # a payload is never cut by a seal
        return segment.header_full or segment.payload + more >= SEGMENT_BYTES

    def _take(self, segment: Segment, piece: Piece, at: int) -> int:
        """List the piece's record; the bytes of it that go into the file, padding included."""
        if piece.ready is not None:
            piece.ready.synchronize()
        size = 0
        if piece.room is not None:
            if self._stats_only:
                self._measure(piece)
            else:
                size = piece.room.size
                if self._payload_at is None:
                    self._payload_at = at
        if piece.entry is not None:
            self._list(segment, piece.entry, self._payload_at)
            self._payload_at = None
        return size

    def _list(self, segment: Segment, entry: Entry, offset: int | None) -> None:
        stats = None
        if self._moments is not None:
            stats, self._moments = self._moments.result(), None
        segment.add(entry, offset, entry.line(offset, stats))

    def _measure(self, piece: Piece) -> None:
        room = piece.room
        if room is None or piece.dtype is None:
            return
        self._moments = self._moments or Moments()
        if piece.nbytes:
            bytes_ = self._staging.view[room.start : room.start + piece.nbytes]
            self._moments.add(torch.frombuffer(bytes_, dtype=BY_NAME[piece.dtype]))

    def _open(self) -> Segment:
        self._segment = Segment(self._directory, self._next_index, self._header_room)
        self._next_index += 1
        self._oldest = time.monotonic()
        return self._segment

    def _seal(self) -> None:
        segment = self._segment
        if segment is None or self._payload_at is not None:
            return
        try:
            self._before_commit()
            segment.seal()
        except OSError as error:
            self._give_up(error)
            return
        self._header_room = segment.next_room()
        self._segment = None
        self._sealed_at = time.monotonic()
        self._step_ended = False

    def _discard(self) -> None:
        room = self._queue.popleft().room
        if room is not None:
            self._staging.release(room.span)

    def _give_up(self, error: Exception) -> None:
        self.alive = False
        segment, self._segment = self._segment, None
        self._payload_at = None
        if segment is not None:
            with suppress(OSError):
                segment.abandon()
        self._failed(f"recording stopped: {type(error).__name__}: {error}")

    def forget(self) -> None:
        """In a forked child: let the parent's files go without touching them."""
        self.alive = False
        if self._segment is not None:
            self._segment.forget()
