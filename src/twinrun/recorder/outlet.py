"""Where a process's records go: its staging buffer, its writer, and the copies between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from twinrun.recorder.copying import copy_in_pieces, copy_whole
from twinrun.recorder.device import DeviceCopies
from twinrun.recorder.index import Entry
from twinrun.recorder.payload import Look, contiguous_cpu, unseen
from twinrun.recorder.staging import Room, Staging
from twinrun.recorder.writer import Piece, Writer


class Outlet:
    """Made at a process's first record; used under the recorder's lock, but for ``close``.

    before_commit, failed: see Writer. note: is told what makes recording slower.
    """

    def __init__(
        self,
        directory: Path,
        *,
        buffer_bytes: int,
        stats_only: bool,
        before_commit: Callable[[], None],
        failed: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self._staging = Staging(buffer_bytes)
        self._device: DeviceCopies | None = None
        self._note = note
        self.writer = Writer(
            directory,
            self._staging,
            stats_only=stats_only,
            before_commit=before_commit,
            failed=failed,
        )
        self.writer.start()

    @property
    def alive(self) -> bool:
        """Whether records are still taken; False once the disk refused."""
        return self.writer.alive

    def put(self, entry: Entry, seen: Look, dtype: str) -> bool:
        """Copy the tensor's values and hand them to the writer; False where it takes no more.

        Waits while the buffer is full.
        """
        nbytes = entry.heading.nbytes
        if seen.refusal:
            self.writer.put(Piece(entry))
            return self.alive
        if seen.address and nbytes <= self._staging.largest:
            room = copy_whole(self._staging, seen.address, nbytes, self._reserve)
            if room is None:
                return False
            self.writer.put(Piece(entry, room, nbytes, dtype))
            return True
        return self._put_slowly(entry, seen, dtype)

    def _put_slowly(self, entry: Entry, seen: Look, dtype: str) -> bool:
        left = nbytes = entry.heading.nbytes
        with unseen():
            for room, size, ready in self._pieces(seen, nbytes):
                left -= size
                self.writer.put(Piece(None if left else entry, room, size, dtype, ready))
        return left == 0 and self.alive

    def _pieces(
        self, seen: Look, nbytes: int
    ) -> Iterator[tuple[Room, int, torch.cuda.Event | None]]:
        if seen.tensor.is_cuda:
            self._device = self._device or DeviceCopies(self._staging, self._note)
            yield from self._device.stage(seen.tensor, nbytes, self._reserve)
            return
        held = seen.tensor if seen.address else contiguous_cpu(seen.tensor)
        if nbytes > self._staging.largest:
            for room, size in copy_in_pieces(self._staging, held.data_ptr(), nbytes, self._reserve):
                yield room, size, None
            return
        whole = copy_whole(self._staging, held.data_ptr(), nbytes, self._reserve)
        if whole is not None:
            yield whole, nbytes, None

    def _reserve(self, size: int) -> Room | None:
        return self._staging.reserve(size, self.writer.wake, self._is_alive)

    def _is_alive(self) -> bool:
        return self.writer.alive

    def close(self) -> None:
        """Seal what is staged, end the thread, give the memory back."""
        self.writer.close()
        if self._device is not None:
            self._device.close()
        self._staging.close()

    def forget(self) -> None:
        """In a forked child: leave the parent's files, thread and memory alone."""
        self.writer.forget()
