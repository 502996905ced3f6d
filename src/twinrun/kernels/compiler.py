"""CUDA C++ to a cubin by NVRTC, NVIDIA's run-time compiler: no toolkit, no GPU, no driver needed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from twinrun.errors import UnavailableError
from twinrun.kernels.source import Source

OPTIONS = ("--std=c++17",)
_PACKAGES = ("cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")


def compiler_version() -> str:
    """NVRTC's version; ``UnavailableError`` where it or its bindings are not installed."""
    nvrtc = _nvrtc()
    try:
        status, major, minor = nvrtc.nvrtcVersion()
    except Exception as error:
        raise _missing(error) from error
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise _missing(RuntimeError(str(status)))
    return f"nvrtc {major}.{minor}"


def compile_source(source: Source, architecture: str, defines: tuple[str, ...]) -> bytes:
    """The cubin of ``source`` for ``architecture`` (``sm_90``).

    ``UnavailableError`` where there is no compiler, or with its log where it refuses the source
    or the architecture.
    """
    compiler_version()
    nvrtc = _nvrtc()
    program = _take(
        nvrtc.nvrtcCreateProgram(
            source.text.encode(),
            f"{source.name}.cu".encode(),
            len(source.headers),
            [text.encode() for _, text in source.headers],
            [name.encode() for name, _ in source.headers],
        )
    )
    try:
        return _compile(nvrtc, program, source.name, options(architecture, defines))
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def options(architecture: str, defines: tuple[str, ...]) -> tuple[str, ...]:
    """The compiler's command line."""
    return (f"--gpu-architecture={architecture}", *OPTIONS, *(f"-D{name}" for name in defines))


def _compile(nvrtc: Any, program: Any, name: str, flags: tuple[str, ...]) -> bytes:
    (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise UnavailableError(
            f"NVRTC could not compile the kernel {name}.",
            seen=f"{status.name}: {_log(nvrtc, program)}",
            expected=f"a binary with {' '.join(flags)}",
            do="install an NVRTC that knows this GPU (pip install 'twinrun[cuda13]')",
        )
    cubin = bytes(_take(nvrtc.nvrtcGetCUBINSize(program)))
    _take(nvrtc.nvrtcGetCUBIN(program, cubin))
    return cubin


def _log(nvrtc: Any, program: Any) -> str:
    log = bytes(_take(nvrtc.nvrtcGetProgramLogSize(program)))
    _take(nvrtc.nvrtcGetProgramLog(program, log))
    return log.rstrip(b"\0 \n").decode(errors="replace")


def _take(result: tuple[Any, ...]) -> Any:
    status, *rest = result
    if status.value != 0:
        raise UnavailableError("NVRTC failed.", seen=str(status))
    return rest[0] if rest else None


def _nvrtc() -> ModuleType:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise _missing(error) from error
    module: ModuleType = nvrtc
    return module


def _missing(error: Exception) -> UnavailableError:
    return UnavailableError(
        "NVRTC, which compiles Twinrun's kernels, cannot be loaded.",
        seen=f"{str(error).splitlines()[0]}; packages: {', '.join(map(_installed, _PACKAGES))}",
        expected="cuda-bindings and NVRTC of the same CUDA major as torch",
        do="pip install 'twinrun[cuda13]' (or [cuda12], as torch.version.cuda says)",
    )


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"
