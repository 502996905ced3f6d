"""What inferring a layout ends with: the one layout that fits, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twinrun.comparison.replicas import ReplicaDifference
from twinrun.layout import Dims, Placement


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pending sum that the shapes allow: a hint to test, never a layout to compare by."""

    placement: Placement

    @property
    def dims(self) -> Dims:
        return self.placement.dims

    @property
    def dims_text(self) -> str:
        return str(self.dims)


@dataclass(frozen=True, slots=True)
class Inference:
    """The only layout that fits.

    ``differences``: not empty when the shapes leave one layout but ranks that it calls replicas
    hold other bits; a comparison then has to look at each of them, and ``candidates`` are the
    pending sums that would explain it.
    """

    placement: Placement
    reason: str
    differences: tuple[ReplicaDifference, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    source: Literal["inferred"] = "inferred"

    @property
    def dims(self) -> Dims:
        return self.placement.dims

    @property
    def dims_text(self) -> str:
        """The layout as a dims text; dims are called d0, d1, ... unless names were lent."""
        return str(self.dims)


@dataclass(frozen=True, slots=True)
class NoFit:
    """No layout fits, or several do: why, and which (as dims texts)."""

    reason: str
    layouts: tuple[str, ...] = ()
