"""What one binary of a kernel was compiled for."""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = ("bfloat16", "float16", "float32")
ORDERS = ("ranks", "tree")
WORLDS = (2, 3, 4, 6, 8)
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")


@dataclass(frozen=True, slots=True)
class Variant:
    """Compile-time choices of an all-reduce kernel.

    ``whole`` promises 16-byte aligned tensors of a multiple of 16 bytes; ``checked`` compiles in
    the timeout that names a rank which never arrives. ``tuning`` overrides macros that the sources
    give a value of their own, for measuring.
    """

    kernel: str
    world: int
    dtype: str
    order: str = "ranks"
    whole: bool = False
    checked: bool = False
    tuning: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.world not in WORLDS:
            raise ValueError(f"no kernel for {self.world} ranks, there are {WORLDS}")
        if self.dtype not in DTYPES:
            raise ValueError(f"no kernel for {self.dtype}, there are {DTYPES}")
        if self.order not in ORDERS:
            raise ValueError(f"no kernel for order {self.order!r}, there are {ORDERS}")

    @property
    def defines(self) -> tuple[str, ...]:
        """The macros that the sources read."""
        chosen = [
            f"WORLD={self.world}",
            f"DTYPE_{self.dtype.upper()}",
            f"ORDER_{self.order.upper()}",
        ]
        chosen += ["WHOLE"] * self.whole + ["CHECKED"] * self.checked
        return (*chosen, *self.tuning)
