"""NCCL between one sender and one receiver: a communicator of their own, from the library that torch loaded.

Not through ``torch.distributed``: its watchdog ends the process when a peer dies, and an observed
program must survive that.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch

from twinrun.errors import UnavailableError

ID_BYTES = 128
_UINT8 = 1
_IN_PROGRESS = 7


class _Id(ctypes.Structure):
    _fields_ = (("internal", ctypes.c_ubyte * ID_BYTES),)


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnccl.so.2")
        library.ncclGetErrorString.restype = ctypes.c_char_p
        library.ncclCommInitRank.argtypes = (ctypes.c_void_p, ctypes.c_int, _Id, ctypes.c_int)
        moved = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
        library.ncclSend.argtypes = library.ncclRecv.argtypes = (*moved, ctypes.c_void_p)
        for name in ("ncclCommAbort", "ncclCommDestroy"):
            getattr(library, name).argtypes = (ctypes.c_void_p,)
        library.ncclCommGetAsyncError.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    except (OSError, AttributeError) as error:
        raise UnavailableError("no shared NCCL library is loaded here", seen=str(error)) from None
    return library


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_library(), name)(*arguments)
    if status not in (0, _IN_PROGRESS):
        told = _library().ncclGetErrorString(status).decode("utf-8", "replace")
        raise UnavailableError("NCCL refused a call", seen=f"{name}: {told}")


def version() -> str:
    """NCCL's version here, "" where there is none to use."""
    number = ctypes.c_int()
    try:
        _call("ncclGetVersion", ctypes.byref(number))
    except UnavailableError:
        return ""
    major, rest = divmod(number.value, 10000)
    return f"{major}.{rest // 100}.{rest % 100}"


def unique_id() -> bytes:
    """What both ends of a new communicator must know. UnavailableError."""
    made = _Id()
    _call("ncclGetUniqueId", ctypes.byref(made))
    return bytes(made.internal)


class Communicator:
    """One end of a pair; rank 0 sends, rank 1 receives. Calls may block until the other end comes.

    All of them are made on one thread, but for ``abort``. UnavailableError with NCCL's own words.
    """

    def __init__(self, device: torch.device, token: bytes, rank: int) -> None:
        given = _Id()
        given.internal[:] = token
        self.device = device
        self._handle = ctypes.c_void_p()
        self._other = 1 - rank
        with torch.cuda.device(device):
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            _call("ncclCommInitRank", ctypes.byref(self._handle), 2, given, rank)

    def send(self, flat: torch.Tensor) -> None:
        """Send bytes, in the order of ``stream``."""
        self._move("ncclSend", flat)

    def receive(self, flat: torch.Tensor) -> None:
        """Receive bytes into ``flat``, in the order of ``stream``."""
        self._move("ncclRecv", flat)

    def _move(self, name: str, flat: torch.Tensor) -> None:
        with torch.cuda.device(self.device):
            _call(
                name, flat.data_ptr(), flat.numel(), _UINT8, self._other,
                self._handle, self.stream.cuda_stream,
            )  # fmt: skip

    def trouble(self) -> str:
        """What went wrong since, "" where nothing did."""
        if not self._handle:
            return "the communicator was given up"
        status = ctypes.c_int()
        _library().ncclCommGetAsyncError(self._handle, ctypes.byref(status))
        if status.value in (0, _IN_PROGRESS):
            return ""
        told: bytes = _library().ncclGetErrorString(status.value)
        return told.decode("utf-8", "replace")

    def abort(self) -> None:
        """End what is under way on the device; from any thread, safe twice."""
        handle, self._handle = self._handle, ctypes.c_void_p()
        if handle:
            _library().ncclCommAbort(handle)
