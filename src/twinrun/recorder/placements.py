"""A DTensor's placements as dims text and mesh coordinates."""

from __future__ import annotations

import math
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


def dims_of(placements: Sequence[Placement], mesh: DeviceMesh, shape: Sequence[int]) -> str | None:
    """Dims text ``d0 d1[dp,tp] [cp:partial] # pp:replicated``; None where no text can say it.

    shape: the whole tensor's. Axes on one dim stand outermost first. A strided shard that is alone
    on its dim cuts each of several equal segments on its own (a fused gate and up): ``d1:packed=``.
    Pending maxima and averages have no text.
    """
    held: list[list[str]] = [[] for _ in shape]
    pending: list[str] = []
    facts: list[str] = []
    ordered = _outermost_first(placements, mesh)
    if ordered is None:
        return None
    for axis, placement in ordered:
        if isinstance(dim := getattr(placement, "dim", None), int):
            held[dim].append(axis)
        elif placement.is_partial() and getattr(placement, "reduce_op", "") == "sum":
            pending.append(f"[{axis}:partial]")
        elif placement.is_replicate():
            facts.append(f"{axis}:replicated")
        else:
            return None
    packed = _packed([placement for _, placement in ordered], shape)
    if packed is None:
        return None
    words = [f"d{i}[{','.join(axes)}]" if axes else f"d{i}" for i, axes in enumerate(held)]
    facts += packed
    return " ".join([*words, *pending, *(["#", *facts] if facts else [])])


def _strides(placement: Placement) -> int:
    """How many segments a strided shard cuts one by one; 1 for any other placement."""
    strided = type(placement).__name__ == "_StridedShard"
    return int(getattr(placement, "split_factor", 1)) if strided else 1


def _packed(placements: Sequence[Placement], shape: Sequence[int]) -> list[str] | None:
    """The ``packed`` facts of strided shards that are alone on their dim."""
    facts = []
    on_dim = [getattr(placement, "dim", None) for placement in placements]
    for placement, dim in zip(placements, on_dim, strict=True):
        segments = _strides(placement)
        if segments > 1 and isinstance(dim, int) and on_dim.count(dim) == 1:
            if shape[dim] % segments:
                return None
            facts.append(f"d{dim}:packed={'+'.join([str(shape[dim] // segments)] * segments)}")
    return facts


def _outermost_first(
    placements: Sequence[Placement], mesh: DeviceMesh
) -> list[tuple[str, Placement]] | None:
    """Axes in the order in which they split: a strided shard splits after the later axes.

    None where its stride is not the number of parts that the later axes make.
    """
    pairs = list(zip(axis_names(mesh), placements, strict=True))
    strided = []
    for i, (axis, placement) in enumerate(pairs):
        if (segments := _strides(placement)) == 1:
            continue
        dim = getattr(placement, "dim", None)
        others = [k for k, (_, p) in enumerate(pairs) if k != i and getattr(p, "dim", None) == dim]
        later = math.prod(mesh.size(k) for k in others if k > i)
        if others and segments != later:
            return None
        strided.append((axis, placement))
    return [pair for pair in pairs if pair not in strided] + strided[::-1]
