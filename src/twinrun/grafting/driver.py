"""Calls of the CUDA driver, made through ctypes on the library that torch has loaded.

An observed program needs no further package for them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from twinrun.errors import UnavailableError
from twinrun.grafting.reference import HANDLE_BYTES

_RELAXED = 2


class Handle(ctypes.Structure):
    """An IPC handle, passed by value."""

    _fields_ = (("reserved", ctypes.c_ubyte * HANDLE_BYTES),)


@cache
def library() -> ctypes.CDLL:
    """The driver; UnavailableError where it cannot be reached."""
    try:
        found = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise UnavailableError("the CUDA driver cannot be reached", seen=str(error)) from None
    found.cuIpcOpenMemHandle_v2.argtypes = (ctypes.c_void_p, Handle, ctypes.c_uint)
    write = found.cuStreamWriteValue64_v2
    write.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint)
    found.cuMemcpyDtoDAsync_v2.argtypes = (
        ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p,
    )  # fmt: skip
    return found


def call(name: str, *arguments: Any) -> None:
    """One call; UnavailableError with the driver's own name for what went wrong."""
    try:
        function = getattr(library(), name)
    except AttributeError:
        raise UnavailableError(f"this CUDA driver has no {name}") from None
    status = function(*arguments)
    if status:
        raise UnavailableError("the CUDA driver refused a call", seen=f"{name}: {_named(status)}")


def _named(status: int) -> str:
    text = ctypes.c_char_p()
    library().cuGetErrorName(status, ctypes.byref(text))
    return text.value.decode() if text.value else str(status)


@cache
def _context(ordinal: int) -> ctypes.c_void_p:
    """The context that torch uses on a device; held as long as the process lives."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuDeviceGet", ctypes.byref(device), ordinal)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    return context


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Driver calls of this block go to ``device``; a stream capture elsewhere does not forbid them."""
    call("cuCtxPushCurrent_v2", _context(device.index))
    mode = ctypes.c_int(_RELAXED)
    call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
    try:
        yield
    finally:
        call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
        call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


def in_order(device: torch.device, enqueue: Callable[[int], int]) -> None:
    """``enqueue`` with the current stream of ``device``, which is made current where it is not."""
    if torch._C._cuda_getDevice() == device.index:
        status = enqueue(torch._C._cuda_getCurrentRawStream(device.index))
    else:
        with torch.cuda.device(device):
            status = enqueue(torch._C._cuda_getCurrentRawStream(device.index))
    if status:
        raise UnavailableError(
            "the CUDA driver refused a call in stream order", seen=_named(status)
        )
