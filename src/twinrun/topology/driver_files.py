"""GPUs from what their drivers leave under /proc and /sys, where no library answers."""

from __future__ import annotations

from pathlib import Path

from twinrun.topology.gpus import Gpu, Gpus


def nvidia(root: Path = Path("/")) -> Gpus | str:
    """NVIDIA's GPUs from /proc/driver/nvidia, or why none was found there."""
    listed = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    if not listed:
        return "no NVIDIA driver: /proc/driver/nvidia/gpus is not there"
    rows = [_information(path) for path in listed]
    gpus = [
        Gpu(index, row.get("GPU UUID", ""), row.get("Model", "")) for index, row in enumerate(rows)
    ]
    return Gpus(tuple(gpus), vendor="nvidia", how="/proc/driver/nvidia")


def amd(root: Path = Path("/")) -> Gpus | str:
    """AMD's GPUs from the kernel's KFD topology, or why none was found there."""
    nodes = sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"))
    # A CPU is a node too, with no SIMD units.
    rows = [row for row in map(_properties, nodes) if row.get("simd_count", "0") != "0"]
    if not rows:
        return "no AMD driver: /sys/class/kfd lists no GPU"
    gpus = [
        Gpu(index, row.get("unique_id", ""), f"gfx{row.get('gfx_target_version', '')}")
        for index, row in enumerate(rows)
    ]
    return Gpus(tuple(gpus), vendor="amd", how="/sys/class/kfd")


def _information(path: Path) -> dict[str, str]:
    return _rows(path, ":")


def _properties(path: Path) -> dict[str, str]:
    return _rows(path, " ")


def _rows(path: Path, separator: str) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    cut = (line.partition(separator) for line in lines)
    return {key.strip(): value.strip() for key, _, value in cut}
