"""Memory that the CPU ranks of one host share: a file in /dev/shm without a name once all map it."""

from __future__ import annotations

import mmap
import os
import secrets
from contextlib import suppress
from pathlib import Path

import torch

from twinrun.collectives.exchange import Exchange
from twinrun.errors import UnavailableError
from twinrun.topology.memory import SHARED


class Segment:
    """``nbytes`` of shared memory, mapped by every rank of an exchange.

    Made by all ranks at the same point: the first creates it, all map it, then its name is removed,
    so that nothing is left behind however the processes end. ``UnavailableError`` on every rank
    where one of them cannot.
    """

    def __init__(self, exchange: Exchange, nbytes: int) -> None:
        self.nbytes = nbytes
        self._map: mmap.mmap | None = None
        path = _create(nbytes) if exchange.rank == 0 else None
        try:
            name = exchange.gather_json(None if path is None else path.name)[0]
            self._map = _map(SHARED / name, nbytes)
            exchange.barrier()
        finally:
            if path is not None:
                path.unlink(missing_ok=True)
        self.bytes = torch.frombuffer(self._map, dtype=torch.uint8)

    @property
    def address(self) -> int:
        """Where it begins in this process."""
        return self.bytes.data_ptr()

    def view(self, dtype: torch.dtype, begin: int, numel: int) -> torch.Tensor:
        """``numel`` elements from byte ``begin`` on, without a copy."""
        return self.bytes[begin : begin + numel * dtype.itemsize].view(dtype)

    def close(self) -> None:
        """Unmap it here; the memory itself goes when the last rank has. Safe twice."""
        self.bytes = torch.empty(0, dtype=torch.uint8)
        mapped, self._map = self._map, None
        if mapped is not None:
            # A view may still be held somewhere: then it is unmapped when that goes.
            with suppress(BufferError):
                mapped.close()


def _create(nbytes: int) -> Path:
    path = SHARED / f"twinrun-{secrets.token_hex(16)}"
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _refused(error) from error
    try:
        # A sparse file on a full /dev/shm would kill the process at its first touch (SIGBUS).
        os.posix_fallocate(handle, 0, nbytes)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _refused(error) from error
    finally:
        os.close(handle)
    return path


def _map(path: Path, nbytes: int) -> mmap.mmap:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise _refused(error) from error
    try:
        if os.fstat(handle).st_size != nbytes:
            raise UnavailableError("shared memory has another size than agreed.", seen=str(path))
        return mmap.mmap(handle, nbytes)
    except OSError as error:
        raise _refused(error) from error
    finally:
        os.close(handle)


def _refused(error: OSError) -> UnavailableError:
    return UnavailableError(
        "shared memory cannot be had.",
        seen=f"{SHARED}: {error.strerror}",
        expected=f"room in {SHARED}, shared by the ranks of this host",
        do="give the container more (--shm-size), or set TWINRUN_SHARED_MEMORY_ALL_REDUCE=0",
    )
