"""Loading a cubin and launching its kernel through NVIDIA's driver bindings."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any

from twinrun.errors import UnavailableError


@cache
def driver() -> ModuleType:
    """``cuda.bindings.driver``, initialised; ``UnavailableError`` without bindings or driver."""
    try:
        from cuda.bindings import driver as bindings

        (status,) = bindings.cuInit(0)
    except Exception as error:
        raise UnavailableError(
            "the CUDA driver cannot be reached.",
            seen=str(error).splitlines()[0],
            expected="an NVIDIA driver and the package cuda-bindings",
            do="pip install 'twinrun[cuda13]' (or [cuda12]) on a machine with an NVIDIA driver",
        ) from error
    take((status,))
    module: ModuleType = bindings
    return module


def take(result: tuple[Any, ...]) -> Any:
    """The value of a driver call; ``UnavailableError`` with the driver's own name of the trouble."""
    status, *rest = result
    if status.value != 0:
        raise UnavailableError("the CUDA driver refused a call.", seen=status.name)
    return rest[0] if len(rest) == 1 else tuple(rest) if rest else None


@contextmanager
def outside_capture() -> Iterator[None]:
    """Allows this thread calls that a stream capture elsewhere would forbid (loading, mapping)."""
    cuda = driver()
    relaxed = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    before = take(cuda.cuThreadExchangeStreamCaptureMode(relaxed))
    try:
        yield
    finally:
        take(cuda.cuThreadExchangeStreamCaptureMode(before))


class Function:
    """One kernel in the current context. Its module stays loaded as long as the process lives."""

    def __init__(self, binary: bytes, name: str) -> None:
        cuda = driver()
        with outside_capture():
            self._module = take(cuda.cuModuleLoadData(binary))
            self.handle = take(cuda.cuModuleGetFunction(self._module, name.encode()))
            self.context = take(cuda.cuCtxGetCurrent())


class _Attribute(ctypes.Structure):
    """``CUlaunchAttribute``: an id, padding to 8 bytes, and a union of 64 bytes."""

    _fields_ = (("id", ctypes.c_uint64), ("value", ctypes.c_uint64 * 8))


class _Config(ctypes.Structure):
    """``CUlaunchConfig``."""

    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint32),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("attribute_count", ctypes.c_uint32),
    )


_PROGRAMMATIC_STREAM_SERIALIZATION = 6


@cache
def _launch() -> Any:
    """The driver's ``cuLaunchKernelEx`` itself.

    The bindings' own wrapper takes the configuration apart at every call; with structures that are
    filled once, a launch costs two thirds (benchmarks/eager_all_reduce.py).
    """
    return ctypes.CDLL("libcuda.so.1").cuLaunchKernelEx


class Launch:
    """A kernel with its launch shape and its ``arguments``, read at every start.

    ``fire()`` is the driver's call alone, on the stream that was aimed at last; it gives the
    driver's status.
    """

    def __init__(
        self,
        function: Function,
        arguments: ctypes.Structure,
        blocks: int,
        threads: int,
        dependent: bool,
    ) -> None:
        self.arguments = arguments
        self._function, self._dependent = function, dependent
        self._pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        self._attribute = _Attribute(id=_PROGRAMMATIC_STREAM_SERIALIZATION)
        self._attribute.value[0] = 1
        self._config = _Config(
            grid=(blocks, 1, 1), block=(threads, 1, 1), attribute_count=int(dependent)
        )
        self._config.attributes = ctypes.pointer(self._attribute)
        self.stream: int | None = None
        # Pointers made once: ctypes passes them on as they are.
        self.fire = partial(
            _launch(),
            ctypes.c_void_p(ctypes.addressof(self._config)),
            ctypes.c_void_p(int(function.handle)),
            ctypes.c_void_p(ctypes.addressof(self._pointers)),
            ctypes.c_void_p(None),
        )

    def __call__(self, stream: int) -> None:
        """Enqueue on the stream of this handle."""
        if stream != self.stream:
            self.aim(stream)
        if self.fire():
            self.elsewhere()

    def aim(self, stream: int) -> None:
        """Let ``fire`` enqueue on this stream from now on."""
        self._config.stream = self.stream = stream

    def elsewhere(self) -> None:
        """Where ``fire`` gave no 0: another device may be current, so it goes by its own context."""
        cuda = driver()
        take(cuda.cuCtxPushCurrent(self._function.context))
        try:
            take((cuda.CUresult(self.fire()),))
        finally:
            take(cuda.cuCtxPopCurrent())

    def copy(self) -> Launch:
        """The same kernel and launch shape, with an argument block of its own."""
        arguments = type(self.arguments).from_buffer_copy(self.arguments)
        blocks, threads = self._config.grid[0], self._config.block[0]
        return Launch(self._function, arguments, blocks, threads, self._dependent)
