"""The CUDA driver as far as direct channels need it: shared memory, and words written in stream order.

Called through ctypes on the library that torch has loaded, so that an observed program needs no
further package. Memory comes from the driver itself: what torch's allocator does (expandable
segments, pools, ``empty_cache``) can neither forbid sharing it nor free it under a peer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import torch

from twinrun.errors import UnavailableError
from twinrun.grafting.board import BYTES, Board
from twinrun.grafting.layer import Block
from twinrun.grafting.reference import HANDLE_BYTES

_LAZY_PEER_ACCESS = 1
_REGISTER_PORTABLE_MAPPED = 1 | 2
_CAN_WRITE_64_BIT = 122
_RELAXED = 2
_ALREADY_REGISTERED = 712


class _Handle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_ubyte * HANDLE_BYTES),)


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise UnavailableError("the CUDA driver cannot be reached", seen=str(error)) from None
    library.cuIpcOpenMemHandle_v2.argtypes = (ctypes.c_void_p, _Handle, ctypes.c_uint)
    write = library.cuStreamWriteValue64_v2
    write.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint)
    library.cuMemcpyDtoDAsync_v2.argtypes = (
        ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p,
    )  # fmt: skip
    return library


def _call(name: str, *arguments: Any) -> None:
    try:
        function = getattr(_library(), name)
    except AttributeError:
        raise UnavailableError(f"this CUDA driver has no {name}") from None
    status = function(*arguments)
    if status:
        raise UnavailableError("the CUDA driver refused a call", seen=f"{name}: {_named(status)}")


def _named(status: int) -> str:
    text = ctypes.c_char_p()
    _library().cuGetErrorName(status, ctypes.byref(text))
    return text.value.decode() if text.value else str(status)


@cache
def _context(ordinal: int) -> ctypes.c_void_p:
    """The context that torch uses on a device; held as long as the process lives."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _call("cuDeviceGet", ctypes.byref(device), ordinal)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    return context


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Driver calls of this block go to ``device``; a stream capture elsewhere does not forbid them."""
    _call("cuCtxPushCurrent_v2", _context(device.index))
    mode = ctypes.c_int(_RELAXED)
    _call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
    try:
        yield
    finally:
        _call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
        _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


def _in_order(device: torch.device, call: Callable[[int], int]) -> None:
    """``call`` with the current stream of ``device``, which is made current where it is not."""
    if torch._C._cuda_getDevice() == device.index:
        status = call(torch._C._cuda_getCurrentRawStream(device.index))
    else:
        with torch.cuda.device(device):
            status = call(torch._C._cuda_getCurrentRawStream(device.index))
    if status:
        raise UnavailableError(
            "the CUDA driver refused a call in stream order", seen=_named(status)
        )


class Cuda:
    """``Layer`` for NVIDIA GPUs; a process that uses none has no context made for it."""

    def __init__(self) -> None:
        self._noted: torch.device | None = None
        self._boards: list[Board] = []

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

    def allocate(self, device: torch.device, nbytes: int) -> Block:
        address, handle = ctypes.c_uint64(), _Handle()
        with _on(device):
            _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(nbytes))
            try:
                _call("cuIpcGetMemHandle", ctypes.byref(handle), address)
            except UnavailableError:
                _call("cuMemFree_v2", address)
                raise
        return Block(address.value, nbytes, bytes(handle.reserved))

    def free(self, device: torch.device, block: Block) -> None:
        with _on(device):
            _call("cuMemFree_v2", ctypes.c_uint64(block.address))

    def open(self, device: torch.device, handle: bytes, nbytes: int) -> int:
        address, given = ctypes.c_uint64(), _Handle()
        given.reserved[:] = handle
        with _on(device):
            _call("cuIpcOpenMemHandle_v2", ctypes.byref(address), given, _LAZY_PEER_ACCESS)
            if self._extent(address) < nbytes:
                _call("cuIpcCloseMemHandle", address)
                raise UnavailableError("a peer's block is smaller than it says")
        return address.value

    def _extent(self, address: ctypes.c_uint64) -> int:
        base, size = ctypes.c_uint64(), ctypes.c_size_t()
        _call("cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(size), address)
        return base.value + size.value - address.value

    def shut(self, device: torch.device, address: int) -> None:
        with _on(device):
            _call("cuIpcCloseMemHandle", ctypes.c_uint64(address))

    def flat(self, device: torch.device, address: int, nbytes: int) -> torch.Tensor:
        storage = torch._C._construct_storage_from_data_pointer(address, device, nbytes)
        made = torch.empty(0, dtype=torch.uint8, device=device)
        with torch.no_grad():
            return made.set_(storage, 0, (nbytes,), (1,))

    def copy(self, device: torch.device, to: int, source: int, nbytes: int) -> None:
        # Half of what a copy through torch costs the processor.
        move = _library().cuMemcpyDtoDAsync_v2
        _in_order(device, lambda stream: move(to, source, nbytes, stream))

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
            self._write = _library().cuStreamWriteValue64_v2
            with _on(device):
                self._at = self._register()
        except (UnavailableError, AttributeError) as error:
            self.reason = getattr(error, "seen", None) or str(error)

    def _register(self) -> int:
        able, device = ctypes.c_int(), ctypes.c_int()
        _call("cuCtxGetDevice", ctypes.byref(device))
        _call("cuDeviceGetAttribute", ctypes.byref(able), _CAN_WRITE_64_BIT, device)
        if not able.value:
            raise UnavailableError("this device writes no 64-bit words in stream order")
        host, seen = ctypes.c_void_p(self._board.address), ctypes.c_uint64()
        status = _library().cuMemHostRegister_v2(
            host, ctypes.c_size_t(BYTES), _REGISTER_PORTABLE_MAPPED
        )
        if status not in (0, _ALREADY_REGISTERED):
            raise UnavailableError("the board cannot be registered", seen=f"status {status}")
        _call("cuMemHostGetDevicePointer_v2", ctypes.byref(seen), host, 0)
        return seen.value

    def write(self, index: int, word: int) -> None:
        if not self._at:
            torch.cuda.current_stream(self._device).synchronize()
            self._board.store(index, word)
            return
        at = self._at + 8 * index
        _in_order(self._device, lambda stream: self._write(stream, at, word, 0))


@cache
def cuda() -> Cuda | None:
    """This process's GPUs, None where its torch can use none."""
    return Cuda() if torch.cuda.is_available() and torch.version.hip is None else None
