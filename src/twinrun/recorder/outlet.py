"""Where a process's records go: its staging buffer, its writer, and the copies between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from twinrun.recorder.copying import copy_in_pieces, copy_whole
from twinrun.recorder.device import DeviceCopies
from twinrun.recorder.index import Entry
from twinrun.recorder.payload import Look, contiguous_cpu, unseen
from twinrun.recorder.staging import Staging
from twinrun.recorder.writer import Event, Piece, Writer


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

    @property
    def alive(self) -> bool:
        """Whether records are still taken; False once the disk refused."""
        return self.writer.alive

    def put_memory(self, entry: Entry, address: int, nbytes: int) -> bool:
        """Copy a payload that lies in order in CPU memory; False where no more is taken.

        Waits while the buffer is full.
        """
        staging = self._staging
        if nbytes > staging.largest:
            pieces = copy_in_pieces(staging, address, nbytes, self._reserve)
            return self._put_pieces(entry, ((start, size, None) for start, size in pieces))
        start = copy_whole(staging, address, nbytes, self._reserve)
        if start < 0:
            return False
        self.writer.put(Piece(entry, start, nbytes, staging.reserved, entry.heading.dtype))
        return True

    def put_tensor(self, entry: Entry, seen: Look) -> bool:
        """Copy a payload from wherever it is; a refused one is listed without its values."""
        if seen.refusal:
            self.writer.put(Piece(entry))
            return self.alive
        with unseen():
            if seen.tensor.is_cuda:
                self._device = self._device or DeviceCopies(self._staging, self._note)
                nbytes = entry.heading.nbytes
                return self._put_pieces(
                    entry, self._device.stage(seen.tensor, nbytes, self._reserve)
                )
            held = contiguous_cpu(seen.tensor)
            return self.put_memory(entry, held.data_ptr(), entry.heading.nbytes)

    def _put_pieces(self, entry: Entry, pieces: Iterable[tuple[int, int, Event | None]]) -> bool:
        left, dtype = entry.heading.nbytes, entry.heading.dtype
        listed = False
        for start, size, ready in pieces:
            left -= size
            listed = left == 0
            self.writer.put(
                Piece(entry if listed else None, start, size, self._staging.reserved, dtype, ready)
            )
        return listed

    def _reserve(self, nbytes: int) -> int:
        return self._staging.wait_and_reserve(nbytes, self.writer.wake, self._is_alive)

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
