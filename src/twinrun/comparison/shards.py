"""What each rank holds of one tensor, before anything says how the parts belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from twinrun.layout import Mesh

Fetch = Callable[[int], torch.Tensor]
"""rank -> the CPU tensor it holds; called once for each slice and rank, so it must be cheap."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's own tensor: where the rank stands, the shape, and how to get at the values."""

    mesh: Mesh
    shape: tuple[int, ...]
    fetch: Callable[[], torch.Tensor]


def held(shards: Mapping[int, Shard]) -> dict[int, tuple[Mesh, tuple[int, ...]]]:
    """The part that `layout.place` needs."""
    return {rank: (shard.mesh, shard.shape) for rank, shard in shards.items()}


def fetcher(shards: Mapping[int, Shard]) -> Fetch:
    """A `Fetch` over these shards."""
    return lambda rank: shards[rank].fetch()
