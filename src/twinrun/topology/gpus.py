"""The GPUs of this machine and the links between them, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. ``clique`` names the NVLink domain that it shares with GPUs of other nodes."""

    index: int
    uuid: str
    name: str
    memory_bytes: int = 0
    capability: tuple[int, int] = (0, 0)
    mig: bool = False
    clique: str = ""
    mig_uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """How two GPUs reach each other: ``nvlink``, ``pci`` or ``none``, and over how many links."""

    first: int
    second: int
    kind: str
    count: int = 0

    def __str__(self) -> str:
        count = str(self.count) if self.kind == "nvlink" and self.count else ""
        return f"{self.first}-{self.second} {self.kind}{count}"


@dataclass(frozen=True, slots=True)
class Gpus:
    """Every GPU that was found, how, and what kept others from being found."""

    gpus: tuple[Gpu, ...] = ()
    links: tuple[Link, ...] = ()
    driver: str = ""
    cuda: str = ""
    vendor: str = ""
    how: str = ""
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The GPUs' common name, ``mixed`` where they differ, empty where there is none."""
        names = {gpu.name for gpu in self.gpus}
        return "mixed" if len(names) > 1 else next(iter(names), "")

    @property
    def capability(self) -> tuple[int, int]:
        """The least compute capability among them."""
        return min((gpu.capability for gpu in self.gpus), default=(0, 0))
