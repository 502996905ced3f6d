"""What a hypothesis is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from twinrun.comparison.result import Floor
from twinrun.comparison.verdict import judge
from twinrun.numerics.distance import distance
from twinrun.numerics.dtypes import Format
from twinrun.numerics.own_size import worst_own

# A sample may lie this many floors apart, and this far at least, before the whole is not looked at.
_ENOUGH = 8.0
_LEAST = 1e-4


@dataclass(frozen=True)
class Part:
    """One rank's box of the target's logical tensor."""

    rank: int
    index: tuple[slice, ...]


@dataclass(frozen=True)
class Case:
    """Both logical tensors of a point that differs, in float32 or float64, and its floor.

    ``parts``: the target's boxes, one a rank, where it was sharded. ``ranks``: rank -> that rank's
    own tensor, where several hold tensors of the whole's shape. ``others``: (name, values) of the
    target's tensors that may have been taken for this one.
    """

    baseline: torch.Tensor
    target: torch.Tensor
    floor: Floor
    form: Format
    parts: Sequence[Part] = ()
    ranks: Mapping[int, torch.Tensor] = field(default_factory=dict)
    others: Callable[[], Iterable[tuple[str, torch.Tensor]]] = tuple

    def explained(self, baseline: torch.Tensor, target: torch.Tensor) -> float | None:
        """The relative L2 that remains, if it is not above the floor; else None."""
        if baseline.shape != target.shape or not baseline.numel():
            return None
        found = distance(baseline, target)

        def own() -> float:
            pair = (lambda: [(baseline, target)], tuple(baseline.shape))
            return worst_own(*pair, baseline.dtype, target.dtype)

        said = judge(found, self.floor, self.form, own)
        return found.relative_l2 if said.measured in ("equal", "close") else None

    def promising(self, baseline: torch.Tensor, target: torch.Tensor) -> bool:
        """A cheap look at a sample of both: whether the full test is worth its time."""
        if baseline.shape != target.shape:
            return False
        one, two = sample(baseline), sample(target)
        apart, size = (one - two).norm(), torch.maximum(one.norm(), two.norm())
        return bool(apart <= max(_ENOUGH * self.floor.l2, _LEAST) * size)


def sample(values: torch.Tensor) -> torch.Tensor:
    """Some 4,096 elements: every dim thinned to at most a few indices."""
    thin = values
    for dim in range(values.dim()):
        step = max(1, thin.shape[dim] // (16 if values.dim() > 1 else 4096))
        thin = thin[(slice(None),) * dim + (slice(None, None, step),)]
    return thin.reshape(-1)
