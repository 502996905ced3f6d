"""A byte pipe between two processes of one host: a ring in a memfd that vanishes with its last user."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from functools import cache
from typing import Final

from twinrun.errors import PeerError
from twinrun.grafting.lending import PIECE, Borrower, Lender
from twinrun.grafting.memory import memmove
from twinrun.grafting.rows import Rows

HEADER_BYTES: Final = 4096
CAPACITY: Final = 2 << 20
STRIDE: Final = 512 << 10
"""Bytes copied between two updates of a counter, so that both sides copy at the same time."""

_preadv = ctypes.CDLL(None, use_errno=True).preadv
_preadv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_preadv.restype = ctypes.c_ssize_t

_HEAD, _TAIL = 0, 16  # in 8-byte words: two cache lines apart from each other
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1, 2, 4
_SEALS = _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW


class Ring:
    """One direction of bytes from one writer to one reader; each end is used by one thread at a time.

    The counters only grow: ``head`` bytes were written, ``tail`` bytes were read. Needs a processor
    that keeps the order of stores (x86-64); ``supported()`` says so. Long runs may be lent instead
    (``lending``); they pass the counters by.
    """

    kind = "shared memory"

    def __init__(self, fd: int, capacity: int) -> None:
        self.fd = fd
        self._lender: Lender | None = None
        self._borrower: Borrower | None = None
        self.capacity = capacity
        self._map = mmap.mmap(fd, HEADER_BYTES + capacity)
        self._view = memoryview(self._map)
        self._words = self._view[:HEADER_BYTES].cast("Q")
        self._anchor = ctypes.c_char.from_buffer(self._map)
        self._base = ctypes.addressof(self._anchor) + HEADER_BYTES

    @classmethod
    def create(cls, capacity: int = CAPACITY, *, lends: bool = False) -> Ring:
        """A new ring; hand ``fd`` to the reader over a Unix socket. ``lends``: long runs are lent."""
        fd = os.memfd_create("twinrun-graft", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, HEADER_BYTES + capacity)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
        ring = cls(fd, capacity)
        if lends:
            ring._lender = Lender(ring._words)
        return ring

    @classmethod
    def open(cls, fd: int, pid: int = 0) -> Ring:
        """The ring behind a descriptor that a peer sent; PeerError unless its size is sealed.

        Takes ownership of ``fd``. Without the seal a peer could shrink the file under our feet.
        ``pid``: the writer's process, from which long runs may be borrowed; 0 where it is not known.
        """
        try:
            sealed = fcntl.fcntl(fd, _F_GET_SEALS) & _SEALS == _SEALS
            capacity = os.fstat(fd).st_size - HEADER_BYTES
        except OSError as error:
            os.close(fd)
            raise PeerError(f"a peer sent a descriptor that is no ring: {error}") from None
        if not sealed or capacity <= 0:
            os.close(fd)
            raise PeerError("a peer sent a descriptor that is no sealed ring")
        ring = cls(fd, capacity)
        ring._borrower = Borrower(ring._words, pid)
        return ring

    def _ahead(self) -> int:
        """Bytes written and not read yet."""
        ahead = self._words[_HEAD] - self._words[_TAIL]
        if not 0 <= ahead <= self.capacity:
            raise PeerError("the counters of a shared ring make no sense; the peer is broken")
        return ahead

    def write(self, address: int, nbytes: int) -> int:
        """Copy up to ``nbytes`` from ``address`` into the ring; how many went in (0: it is full)."""
        head = self._words[_HEAD]
        if self._lender is not None:
            if self._lender.lent:
                if not self._lender.refused:
                    return self._lender.moved()
                if moved := self._lender.withdraw():
                    return moved
            if self._lender.may(nbytes):
                self._lender.lend(address, nbytes, head)
                return 0
        at = head % self.capacity
        count = min(nbytes, self.capacity - self._ahead(), self.capacity - at, STRIDE)
        if count:
            memmove(self._base + at, address, count)
            self._words[_HEAD] = head + count
        return count

    def put(self, frame: bytes) -> bool:
        """Copy all of ``frame`` into the ring where it fits in one piece; whether it did."""
        lender = self._lender
        head, nbytes = self._words[_HEAD], len(frame)
        at = head % self.capacity
        if (lender is not None and lender.lent) or nbytes > self.capacity - max(at, self._ahead()):
            return False
        memmove(self._base + at, frame, nbytes)
        self._words[_HEAD] = head + nbytes
        return True

    def withdraw(self) -> int:
        """Take back what was lent; how many more of its bytes went until now."""
        return 0 if self._lender is None else self._lender.withdraw()

    def read(self, address: int, nbytes: int) -> int:
        """Copy up to ``nbytes`` out of the ring to ``address``; how many came (0: it is empty)."""
        tail = self._words[_TAIL]
        borrower = self._borrower
        if borrower is not None and (lent := borrower.left(tail)):
            return borrower.take_run(address, min(lent, nbytes, PIECE))
        at = tail % self.capacity
        count = min(nbytes, self._ahead(), self.capacity - at, STRIDE)
        if count:
            memmove(address, self._base + at, count)
            self._words[_TAIL] = tail + count
        return count

    def peek(self, nbytes: int) -> bytes:
        """Up to ``nbytes`` that come next, left where they are."""
        at = self._words[_TAIL] % self.capacity
        count = min(nbytes, self._ahead(), self.capacity - at)
        return ctypes.string_at(self._base + at, count) if count else b""

    def skip(self, nbytes: int) -> None:
        """Leave behind ``nbytes`` that ``peek`` has shown."""
        self._words[_TAIL] += nbytes

    def read_rows(self, rows: Rows) -> int:
        """As ``read``, into the next of ``rows``: whole ones in one call of the kernel."""
        tail = self._words[_TAIL]
        borrower = self._borrower
        if borrower is not None and (lent := borrower.left(tail)):
            return _borrow_rows(borrower, rows, min(lent, PIECE))
        at = tail % self.capacity
        count = min(self._ahead(), self.capacity - at, STRIDE)
        whole = rows.whole(count)
        if whole:
            count = _preadv(self.fd, rows.iovec, whole, HEADER_BYTES + at)
            if count <= 0:
                raise PeerError(f"a ring cannot be read: {os.strerror(ctypes.get_errno())}")
        else:
            count = min(count, rows.row_bytes - rows.filled)
            memmove(rows.address, self._base + at, count)
        rows.advance(count)
        self._words[_TAIL] = tail + count
        return count

    def close(self) -> None:
        """Unmap and close this end; what the other end still maps stays readable to it."""
        if self.fd < 0:
            return
        self.withdraw()
        os.close(self.fd)
        self.fd = -1
        self._words.release()
        self._view.release()
        del self._anchor
        # A copy that runs in another thread may still use the mapping; it goes with the object then.


def _borrow_rows(borrower: Borrower, rows: Rows, lent: int) -> int:
    whole = rows.whole(lent)
    if whole:
        count = borrower.take(rows.iovec, whole, whole * rows.row_bytes)
    else:
        count = borrower.take_run(rows.address, min(lent, rows.row_bytes - rows.filled))
    rows.advance(count)
    return count


@cache
def supported() -> str | None:
    """None where rings work, else the reason why they do not."""
    machine = os.uname().machine
    if machine not in ("x86_64", "AMD64"):
        return f"shared rings need x86-64, this is {machine}"
    return None if hasattr(os, "memfd_create") else "this system has no memfd_create"
