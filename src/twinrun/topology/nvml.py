"""NVIDIA's GPUs through NVML (``nvidia-ml-py``), where it is installed and answers."""

from __future__ import annotations

from ctypes import byref
from importlib import import_module
from types import ModuleType
from typing import Any

from twinrun.topology.gpus import Gpu, Gpus, Link

# nvml.h: NVML_P2P_CAPS_INDEX_READ, NVML_P2P_CAPS_INDEX_NVLINK, NVML_P2P_STATUS_OK,
# NVML_GPU_FABRIC_STATE_COMPLETED.
_READ, _NVLINK, _OK, _FABRIC_DONE = 0, 2, 0, 3
_MOST_LINKS = 36


def load() -> ModuleType | str:
    """The initialised NVML binding, or why there is none."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return "NVML: the package nvidia-ml-py is not installed (pip install 'twinrun[nvml]')"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return f"NVML: {error}"
    return nvml


def query(nvml: Any) -> Gpus:
    """Every GPU that an initialised NVML lists. Single answers it refuses are left at their default."""
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    return Gpus(
        gpus=tuple(_gpu(nvml, index, handle) for index, handle in enumerate(handles)),
        links=tuple(_links(nvml, handles)),
        driver=_text(_ask(nvml, "", "nvmlSystemGetDriverVersion")),
        cuda=_cuda(_ask(nvml, 0, "nvmlSystemGetCudaDriverVersion")),
        vendor="nvidia",
        how="NVML",
    )


def _gpu(nvml: Any, index: int, handle: Any) -> Gpu:
    memory = _ask(nvml, None, "nvmlDeviceGetMemoryInfo", handle)
    capability = _ask(nvml, (0, 0), "nvmlDeviceGetCudaComputeCapability", handle)
    mig = _ask(nvml, (0, 0), "nvmlDeviceGetMigMode", handle)[0] == 1
    return Gpu(
        index=index,
        uuid=_text(_ask(nvml, "", "nvmlDeviceGetUUID", handle)),
        name=_text(_ask(nvml, "", "nvmlDeviceGetName", handle)),
        memory_bytes=0 if memory is None else int(memory.total),
        capability=(int(capability[0]), int(capability[1])),
        mig=mig,
        clique=_clique(nvml, handle),
        mig_uuids=_mig_uuids(nvml, handle) if mig else (),
    )


def _mig_uuids(nvml: Any, handle: Any) -> tuple[str, ...]:
    found = []
    for place in range(_ask(nvml, 0, "nvmlDeviceGetMaxMigDeviceCount", handle)):
        instance = _ask(nvml, None, "nvmlDeviceGetMigDeviceHandleByIndex", handle, place)
        if instance is not None:
            found.append(_text(_ask(nvml, "", "nvmlDeviceGetUUID", instance)))
    return tuple(uuid for uuid in found if uuid)


def _links(nvml: Any, handles: list[Any]) -> list[Link]:
    links = []
    for first, one in enumerate(handles):
        for second, other in enumerate(handles[first + 1 :], first + 1):
            links.append(_link(nvml, (first, one), (second, other)))
    return links


def _link(nvml: Any, first: tuple[int, Any], second: tuple[int, Any]) -> Link:
    def reaches(what: int) -> bool:
        answer = _ask(nvml, None, "nvmlDeviceGetP2PStatus", first[1], second[1], what)
        return bool(answer == _OK)

    if reaches(_NVLINK):
        return Link(first[0], second[0], "nvlink", _active_links(nvml, first[1]))
    return Link(first[0], second[0], "pci" if reaches(_READ) else "none")


def _active_links(nvml: Any, handle: Any) -> int:
    states = (_ask(nvml, 0, "nvmlDeviceGetNvLinkState", handle, i) for i in range(_MOST_LINKS))
    return sum(state == 1 for state in states)


def _clique(nvml: Any, handle: Any) -> str:
    """``cluster:clique`` where the GPU has joined an NVLink fabric that may span nodes."""
    info = _fabric_info(nvml, handle)
    if info is None or info.state != _FABRIC_DONE:
        return ""
    cluster = bytes(info.clusterUuid).hex()
    # A fabric inside one node reports an all-zero cluster.
    return f"{cluster}:{info.cliqueId}" if cluster.strip("0") else ""


def _fabric_info(nvml: Any, handle: Any) -> Any:
    if not hasattr(nvml, "c_nvmlGpuFabricInfo_t"):
        return None
    info = nvml.c_nvmlGpuFabricInfo_t()
    refused = _ask(nvml, True, "nvmlDeviceGetGpuFabricInfo", handle, byref(info))
    return None if refused else info


def _ask(nvml: Any, default: Any, question: str, *arguments: Any) -> Any:
    """NVML's answer, or ``default`` where this driver, binding or GPU does not know the question."""
    try:
        return getattr(nvml, question)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return default


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}" if version else ""
