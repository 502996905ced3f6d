"""A DTensor's placements as dims text and mesh coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor.placement_types import Placement


def axis_names(mesh: DeviceMesh) -> tuple[str, ...]:
    """The mesh's axis names; ``axis0``, ``axis1`` ... where it was made without."""
    return tuple(mesh.mesh_dim_names or (f"axis{i}" for i in range(mesh.ndim)))


def mesh_of(mesh: DeviceMesh) -> dict[str, tuple[int, int]]:
    """This rank's coordinates; empty where the rank is no part of the mesh."""
    coordinates = mesh.get_coordinate()
    if coordinates is None:
        return {}
    names = axis_names(mesh)
    return {axis: (coordinates[i], mesh.size(i)) for i, axis in enumerate(names)}


def dims_of(placements: Sequence[Placement], mesh: DeviceMesh, ndim: int) -> str | None:
    """Dims text ``d0 d1[dp,tp] [cp:partial] # pp:replicated``; None where no text can say it.

    Axes on one dim stand outermost first. Pending maxima and averages have no text.
    """
    held: list[list[str]] = [[] for _ in range(ndim)]
    pending: list[str] = []
    facts: list[str] = []
    for axis, placement in _outermost_first(placements, mesh):
        if isinstance(dim := getattr(placement, "dim", None), int):
            held[dim].append(axis)
        elif placement.is_partial() and getattr(placement, "reduce_op", "") == "sum":
            pending.append(f"[{axis}:partial]")
        elif placement.is_replicate():
            facts.append(f"{axis}:replicated")
        else:
            return None
    words = [f"d{i}[{','.join(axes)}]" if axes else f"d{i}" for i, axes in enumerate(held)]
    return " ".join([*words, *pending, *(["#", *facts] if facts else [])])


def _outermost_first(
    placements: Sequence[Placement], mesh: DeviceMesh
) -> list[tuple[str, Placement]]:
    """Axes in the order in which they split: a strided shard splits after the later axes."""
    pairs = list(zip(axis_names(mesh), placements, strict=True))
    strided = [pair for pair in pairs if type(pair[1]).__name__ == "_StridedShard"]
    return [pair for pair in pairs if pair not in strided] + strided[::-1]
