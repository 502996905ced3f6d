"""Copying a CUDA tensor into the staging buffer, in the order of the program's own stream.

The values are snapshot on the program's current stream (a copy inside the device, so that a later
in-place change cannot reach it) and travel to pinned memory on a side stream. Where no device
memory is left for a snapshot, the copy runs on the program's stream itself: slower, never wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch

from twinrun.recorder.payload import as_integers
from twinrun.recorder.staging import ALIGNMENT, Staging

_MOST_SNAPSHOTS = 1 << 30


class DeviceCopies:
    """Side streams and pinned memory of one process; made when the first CUDA tensor is seen."""

    def __init__(self, staging: Staging, note: Callable[[str], None]) -> None:
        self._staging = staging
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._snapshots: deque[tuple[torch.cuda.Event, int]] = deque()
        self._in_flight = 0
        answer = torch.cuda.cudart().cudaHostRegister(staging.address, staging.capacity, 0)  # type: ignore[no-untyped-call]
        self._pinned = int(answer) == 0
        if not self._pinned:
            note(
                f"the staging buffer could not be pinned (CUDA error {int(answer)}): slower copies"
            )

    def stage(
        self, tensor: torch.Tensor, nbytes: int, reserve: Callable[[int], int]
    ) -> Iterator[tuple[int, int, torch.cuda.Event]]:
        """Queue the copies; each piece's start, the bytes in it and the event of their arrival."""
        with torch.cuda.device(tensor.device):
            source, stream = self._source(tensor, nbytes)
            flat = source.view(-1).view(torch.uint8) if nbytes else source.view(-1)
            done = 0
            while True:
                size = min(nbytes - done, self._staging.largest)
                start = reserve(size)
                if start < 0:
                    return
                yield start, size, self._copy(flat[done : done + size], start, stream)
                done += size
                if done >= nbytes:
                    break
            if stream != torch.cuda.current_stream():
                self._keep(source, stream, nbytes)

    def _keep(self, snapshot: torch.Tensor, stream: torch.cuda.Stream, nbytes: int) -> None:
        """Its memory is not used again before the side stream has read it."""
        snapshot.record_stream(stream)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
        self._in_flight += nbytes
        self._snapshots.append((event, nbytes))

    def _copy(self, part: torch.Tensor, start: int, stream: torch.cuda.Stream) -> torch.cuda.Event:
        end = start + part.numel()
        self._staging.view[end : end + -end % ALIGNMENT] = bytes(-end % ALIGNMENT)
        with torch.cuda.stream(stream):
            if end > start:
                landing = torch.frombuffer(self._staging.view[start:end], dtype=torch.uint8)
                landing.copy_(part, non_blocking=True)
            # Blocking: the writer sleeps instead of spinning beside the program.
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(stream)
        return event

    def _source(self, tensor: torch.Tensor, nbytes: int) -> tuple[torch.Tensor, torch.cuda.Stream]:
        current = torch.cuda.current_stream()
        plain = as_integers(tensor)
        while self._snapshots and self._snapshots[0][0].query():  # type: ignore[no-untyped-call]
            self._in_flight -= self._snapshots.popleft()[1]
        if self._in_flight + nbytes > _MOST_SNAPSHOTS:
            return plain.contiguous(), current
        try:
            snapshot = plain.clone(memory_format=torch.contiguous_format)
        except torch.OutOfMemoryError:
            return plain.contiguous(), current
        side = self._streams.get(tensor.device)
        if side is None:
            side = self._streams[tensor.device] = torch.cuda.Stream(tensor.device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        return snapshot, side

    def close(self) -> None:
        """Unpin; every copy must have arrived."""
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._staging.address)  # type: ignore[no-untyped-call]


def capturing() -> bool:
    """Whether the current stream is being captured into a CUDA graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
