"""NVIDIA GPUs as direct channels need them: memory that processes share, and words written in stream order."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import torch

from twinrun.errors import UnavailableError
from twinrun.grafting.board import BYTES, Board
from twinrun.grafting.driver import Handle, call, in_order, library, on
from twinrun.grafting.exporting import Exporter, extent_of, flat

_LAZY_PEER_ACCESS = 1
_REGISTER_PORTABLE_MAPPED = 1 | 2
_CAN_WRITE_64_BIT = 122
_ALREADY_REGISTERED = 712


class Cuda:
    """``Layer`` for NVIDIA GPUs; a process that uses none has no context made for it."""

    def __init__(self) -> None:
        self._noted: torch.device | None = None
        self._boards: list[Board] = []
        self._exporters: WeakValueDictionary[torch.device, Exporter] = WeakValueDictionary()

    def owns(self, tensor: torch.Tensor) -> bool:
        return tensor.is_cuda

    def note(self, tensor: torch.Tensor) -> None:
        if tensor.is_cuda:
            self._noted = tensor.device

    def device(self) -> torch.device | None:
        ready: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return self._noted if ready else None

    def identity(self, device: torch.device) -> str:
        return str(torch.cuda.get_device_properties(device).uuid)

    def exporter(self, device: torch.device, limit_bytes: int) -> Exporter:
        found = self._exporters.get(device)
        if found is None:
            found = self._exporters[device] = Exporter(device, limit_bytes)
        return found

    def open(self, device: torch.device, handle: bytes, nbytes: int) -> int:
        address, given = ctypes.c_uint64(), Handle()
        given.reserved[:] = handle
        with on(device):
            call("cuIpcOpenMemHandle_v2", ctypes.byref(address), given, _LAZY_PEER_ACCESS)
            base, extent = extent_of(address.value)
            if base + extent - address.value < nbytes:
                call("cuIpcCloseMemHandle", address)
                raise UnavailableError("a peer's memory is smaller than it says")
        return address.value

    def shut(self, device: torch.device, address: int) -> None:
        with on(device):
            call("cuIpcCloseMemHandle", ctypes.c_uint64(address))

    def flat(self, device: torch.device, address: int, nbytes: int) -> torch.Tensor:
        return flat(device, address, nbytes)

    def copy(self, device: torch.device, to: int, source: int, nbytes: int) -> None:
        # Half of what a copy through torch costs the processor.
        move = library().cuMemcpyDtoDAsync_v2
        in_order(device, lambda stream: move(to, source, nbytes, stream))

    def post(self, board: Board, device: torch.device) -> StreamPost:
        # A word may be on its way when a graft ends: its page stays as long as the process.
        self._boards.append(board)
        return StreamPost(board, device)

    def apart(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


class StreamPost:
    """Words of a board written by the device itself, after what its current stream did before.

    Where the driver cannot do that, the stream is waited for and the processor writes.
    """

    def __init__(self, board: Board, device: torch.device) -> None:
        self._board, self._device = board, device
        self._at = 0
        self.reason = ""
        """why the processor writes, "" where the device does"""
        try:
            self._write = library().cuStreamWriteValue64_v2
            with on(device):
                self._at = self._register()
        except (UnavailableError, AttributeError) as error:
            self.reason = getattr(error, "seen", None) or str(error)

    def _register(self) -> int:
        able, device = ctypes.c_int(), ctypes.c_int()
        call("cuCtxGetDevice", ctypes.byref(device))
        call("cuDeviceGetAttribute", ctypes.byref(able), _CAN_WRITE_64_BIT, device)
        if not able.value:
            raise UnavailableError("this device writes no 64-bit words in stream order")
        host, seen = ctypes.c_void_p(self._board.address), ctypes.c_uint64()
        status = library().cuMemHostRegister_v2(
            host, ctypes.c_size_t(BYTES), _REGISTER_PORTABLE_MAPPED
        )
        if status not in (0, _ALREADY_REGISTERED):
            raise UnavailableError("the board cannot be registered", seen=f"status {status}")
        call("cuMemHostGetDevicePointer_v2", ctypes.byref(seen), host, 0)
        return seen.value

    def write(self, index: int, word: int) -> None:
        if not self._at:
            torch.cuda.current_stream(self._device).synchronize()
            self._board.store(index, word)
            return
        at = self._at + 8 * index
        in_order(self._device, lambda stream: self._write(stream, at, word, 0))


@cache
def cuda() -> Cuda | None:
    """This process's GPUs, None where its torch can use none."""
    return Cuda() if torch.cuda.is_available() and torch.version.hip is None else None
