"""One graft message: its head, and the tensors whose bytes follow it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence

import torch

from twinrun.grafting.memory import Run, memmove, runs
from twinrun.grafting.wire import frame


class Message:
    """A frame to be written: a header as JSON and host tensors, read only while they are written."""

    __slots__ = ("head", "nbytes", "tensors")

    def __init__(self, header: str, tensors: Sequence[torch.Tensor] = ()) -> None:
        self.tensors = tensors
        payload = 0
        for tensor in tensors:
            payload += tensor.nbytes
        self.head = frame(header, payload)
        self.nbytes = len(self.head) + payload

    def runs(self) -> Iterator[Run]:
        """All of its bytes in order, as runs of memory."""
        yield _address(self.head), len(self.head), self.head
        yield from self.payload_runs()

    def payload_runs(self) -> Iterator[Run]:
        """The bytes after its head."""
        for tensor in self.tensors:
            yield from runs(tensor)


class Staged:
    """What is left of a message, copied, so that its tensors may change."""

    def __init__(self, nbytes: int, rest: Iterator[Run]) -> None:
        self.nbytes = nbytes
        self._bytes = torch.empty(nbytes, dtype=torch.uint8)
        address = self._bytes.data_ptr()
        for source, count, _keep in rest:
            memmove(address, source, count)
            address += count

    def runs(self) -> Iterator[Run]:
        yield self._bytes.data_ptr(), self.nbytes, self._bytes


def _address(text: bytes) -> int:
    address = ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value
    return address if address is not None else 0
