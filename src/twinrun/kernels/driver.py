"""Loading a cubin and launching its kernel through NVIDIA's driver bindings."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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
    """One kernel in the current context. Keeps its module loaded as long as it lives."""

    def __init__(self, binary: bytes, name: str) -> None:
        cuda = driver()
        with outside_capture():
            self._module = take(cuda.cuModuleLoadData(binary))
            self.handle = take(cuda.cuModuleGetFunction(self._module, name.encode()))

    def unload(self) -> None:
        """Unload the module; the function must not be running or captured."""
        if self._module is not None:
            take(driver().cuModuleUnload(self._module))
            self._module = None


class Launch:
    """A kernel with its launch shape, ready to be started with the one argument structure."""

    def __init__(
        self,
        function: Function,
        arguments: ctypes.Structure,
        blocks: int,
        threads: int,
        dependent: bool,
    ) -> None:
        self._cuda = driver()
        self._function = function
        self._arguments = arguments
        self._pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        self._parameters = ctypes.addressof(self._pointers)
        self._config = self._configure(blocks, threads, dependent)
        self._success = self._cuda.CUresult.CUDA_SUCCESS

    def _configure(self, blocks: int, threads: int, dependent: bool) -> Any:
        cuda = self._cuda
        config = cuda.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = blocks, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes = 0
        if dependent:
            allowed = cuda.CUlaunchAttribute()
            allowed.id = (
                cuda.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            )
            allowed.value.programmaticStreamSerializationAllowed = 1
            config.attrs = [allowed]
            config.numAttrs = 1
        return config

    def __call__(self, stream: int) -> None:
        """Enqueue on the stream of this handle."""
        self._config.hStream = stream
        (status,) = self._cuda.cuLaunchKernelEx(
            self._config, self._function.handle, self._parameters, 0
        )
        if status is not self._success:
            take((status,))
