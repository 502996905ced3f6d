"""The reading end of a pipe: frames, and payload bytes straight to where they belong."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

import torch

from twinrun.errors import PeerError
from twinrun.grafting.memory import BLOCK_ELEMENTS, blocks
from twinrun.grafting.outlet import Pipe
from twinrun.grafting.patience import Patience
from twinrun.grafting.rows import Rows
from twinrun.grafting.wire import PREFIX, Header, decode_header, decode_prefix

HOST = torch.device("cpu")
_TEXT_BYTES = 4096
"""Headers up to this size pass through memory that is used again."""
_GLANCE_BYTES = 768
"""What a pipe shows of what comes next: a prefix with nearly every header."""


class Away(Protocol):
    """Payloads that do not follow their message."""

    def payload(self, header: Header) -> Any: ...


class Inlet:
    """Receives messages from one peer, called ``who``; used by one thread at a time.

    ``check`` raises when the peer has gone. A message that has begun must keep moving: PeerError
    after ``timeout_s`` without a byte. ``away`` knows the payloads that lie elsewhere.
    """

    def __init__(
        self, pipe: Pipe, who: str, check: Callable[[], None], timeout_s: float, away: Away
    ) -> None:
        self.pipe = pipe
        self.who = who
        self._away = away
        self._elsewhere: Any = None
        self._check = check
        self._timeout_s = timeout_s
        self._prefix = torch.empty(PREFIX.size, dtype=torch.uint8)
        self._prefix_address = self._prefix.data_ptr()
        self._text = torch.empty(_TEXT_BYTES, dtype=torch.uint8)
        self._text_address = self._text.data_ptr()
        self._scratch: torch.Tensor | None = None
        self._following = 0
        self._peek = getattr(pipe, "peek", None)
        self._skip = getattr(pipe, "skip", None)

    @property
    def left(self) -> int:
        """Bytes of the payload that have not been read."""
        away = self._elsewhere
        return self._following if away is None else int(away.left)

    @property
    def device(self) -> torch.device:
        """Where the payload lies."""
        return HOST if self._elsewhere is None else self._elsewhere.device

    def poll(self) -> Header | None:
        """The header of the next message, or None while none has begun to arrive.

        ``left`` is then the size of its payload, which must be read before the next poll.
        """
        if self.left:
            raise PeerError(f"{self.who} sent a message that was not read to its end")
        shown = self._peek(_GLANCE_BYTES) if self._peek is not None else b""
        if len(shown) >= PREFIX.size:
            header_bytes, payload_bytes = decode_prefix(shown[: PREFIX.size], self.who)
            end = PREFIX.size + header_bytes
            if len(shown) >= end:
                self._skip(end)  # type: ignore[misc]
                return self._begun(shown[PREFIX.size : end], payload_bytes)
        begun = self.pipe.read(self._prefix_address, PREFIX.size)
        if not begun:
            return None
        if begun < PREFIX.size:
            self._read(self._prefix_address + begun, PREFIX.size - begun)
        prefix = ctypes.string_at(self._prefix_address, PREFIX.size)
        header_bytes, payload_bytes = decode_prefix(prefix, self.who)
        return self._begun(self._header(header_bytes), payload_bytes)

    def _begun(self, text: bytes, payload_bytes: int) -> Header:
        header = decode_header(text, self.who)
        self._following = payload_bytes
        self._elsewhere = self._away.payload(header)
        return header

    def _header(self, nbytes: int) -> bytes:
        text, address = self._text, self._text_address
        if nbytes > _TEXT_BYTES:
            text = torch.empty(nbytes, dtype=torch.uint8)
            address = text.data_ptr()
        self._read(address, nbytes)
        return ctypes.string_at(address, nbytes)

    def read(self, address: int, nbytes: int) -> None:
        """The next ``nbytes`` of the payload, to ``address``."""
        self._check_left(nbytes)
        self._read(address, nbytes)
        self._following -= nbytes

    def read_all(self) -> torch.Tensor:
        """The whole payload as bytes, in memory of its own."""
        if self._elsewhere is not None:
            read: torch.Tensor = self._elsewhere.read_all()
            return read
        whole = torch.empty(self.left, dtype=torch.uint8)
        self.read(whole.data_ptr(), self.left)
        return whole

    def discard(self) -> None:
        """Read what is left of the payload and forget it."""
        if self.left:
            self.read_all()

    def gift(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """The whole payload as a tensor that the caller owns; None where it has to be copied."""
        if self._elsewhere is None:
            return None
        given: torch.Tensor | None = self._elsewhere.gift(shape, dtype)
        return given

    def hold(self) -> Any:
        """The whole payload, left where it lies (``Tile``) and counted as read; None where it has to be read now."""
        return None if self._elsewhere is None else self._elsewhere.hold()

    def read_tensor(self, into: torch.Tensor, dtype: torch.dtype, *, add: bool = False) -> None:
        """The next elements, sent as ``dtype``, into the view ``into`` (cast, or added to it)."""
        if into.numel() == 0:
            return
        if self._elsewhere is not None:
            self._elsewhere.read_tensor(into, dtype, add=add)
            return
        if not into.is_cpu:
            arrived = torch.empty(into.shape, dtype=dtype)
            self.read(arrived.data_ptr(), arrived.numel() * arrived.element_size())
            into.add_(arrived.to(into.device)) if add else into.copy_(arrived)
            return
        if dtype == into.dtype and not add and into.is_contiguous():
            self.read(into.data_ptr(), into.numel() * into.element_size())
            return
        if dtype == into.dtype and not add and self._scatter(into):
            return
        scratch = self._typed_scratch(dtype)
        for index, count in blocks(tuple(into.shape)):
            part = into[index]
            self.read(scratch.data_ptr(), count * scratch.element_size())
            arrived = scratch[:count].view(part.shape)
            part.add_(arrived) if add else part.copy_(arrived)

    def close(self) -> None:
        """Close the pipe."""
        self.pipe.close()

    def _typed_scratch(self, dtype: torch.dtype) -> torch.Tensor:
        if self._scratch is None or self._scratch.dtype != dtype:
            self._scratch = torch.empty(BLOCK_ELEMENTS, dtype=dtype)
        return self._scratch

    def _scatter(self, into: torch.Tensor) -> bool:
        """Read a strided view row by row where rows are long and the pipe can; whether it did."""
        read_rows = getattr(self.pipe, "read_rows", None)
        rows = None if read_rows is None else Rows.of(into)
        if read_rows is None or rows is None:
            return False
        nbytes = into.numel() * into.element_size()
        self._check_left(nbytes)
        patience = Patience(self._timeout_s, self._check)
        while not rows.done:
            if read_rows(rows):
                patience.progress()
            else:
                self._wait(patience)
        self._following -= nbytes
        return True

    def _check_left(self, nbytes: int) -> None:
        if nbytes > self.left:
            raise PeerError(
                f"{self.who} sent fewer bytes than its message needs",
                seen=f"{self.left} bytes left",
                expected=f"{nbytes} bytes",
            )

    def _read(self, address: int, nbytes: int) -> None:
        count = self.pipe.read(address, nbytes) if nbytes else 0
        if count == nbytes:
            return
        address, nbytes = address + count, nbytes - count
        patience = Patience(self._timeout_s, self._check)
        while nbytes:
            count = self.pipe.read(address, nbytes)
            if count:
                address, nbytes = address + count, nbytes - count
                patience.progress()
            else:
                self._wait(patience)

    def _wait(self, patience: Patience) -> None:
        if not patience.pause():
            raise PeerError(
                f"{self.who} stopped in the middle of a message for {self._timeout_s:g} s"
            )
