"""Whether this process runs in a container, and what it may not do there."""

from __future__ import annotations

from pathlib import Path

from twinrun.topology.fact import Fact

_MARKS = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
_CGROUPS = ("docker", "kubepods", "containerd", "libpod", "lxc")


def container(root: Path = Path("/")) -> Fact[str]:
    """The container runtime's name, or ``""`` outside one."""
    for mark, name in _MARKS.items():
        if (root / mark.lstrip("/")).exists():
            return Fact(name, f"{mark} is there")
    try:
        groups = (root / "proc/1/cgroup").read_text()
    except OSError:
        return Fact("", "no container's mark was found")
    for word in _CGROUPS:
        if word in groups:
            return Fact(word, "/proc/1/cgroup names it")
    return Fact("", "no container's mark was found")
