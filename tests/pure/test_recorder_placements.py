"""A DTensor's placements as dims text, held against torch's own cutting."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.distributed.tensor.placement_types import Partial, Replicate, Shard, _StridedShard

from twinrun.layout import parse_dims, place
from twinrun.layout.mesh import Mesh
from twinrun.recorder.placements import dims_of


@dataclass
class StandInMesh:
    """What `dims_of` asks of a DeviceMesh."""

    mesh_dim_names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.sizes)

    def size(self, axis: int) -> int:
        return self.sizes[axis]


TP = StandInMesh(("tp",), (2,))
GRID = StandInMesh(("dp", "tp"), (2, 2))


@pytest.mark.parametrize(
    ("mesh", "placements", "text"),
    [
        (TP, [Shard(1)], "d0 d1[tp]"),
        (TP, [Partial()], "d0 d1 [tp:partial]"),
        (TP, [Replicate()], "d0 d1 # tp:replicated"),
        (TP, [Partial("max")], None),
        (GRID, [Shard(0), Shard(0)], "d0[dp,tp] d1"),
        (GRID, [_StridedShard(0, split_factor=2), Shard(0)], "d0[tp,dp] d1"),
        (GRID, [_StridedShard(0, split_factor=4), Shard(0)], None),
        (TP, [_StridedShard(1, split_factor=2)], "d0 d1[tp] # d1:packed=4+4"),
        (TP, [_StridedShard(1, split_factor=3)], None),
    ],
)
def test_text(mesh: StandInMesh, placements: list[object], text: str | None) -> None:
    """Every placement has its text, or none where none can say it."""
    assert dims_of(placements, mesh, (8, 8)) == text  # type: ignore[arg-type]


def test_a_lone_strided_shard_is_cut_as_torch_cuts_it() -> None:
    """The packed text puts each rank's elements where `_StridedShard` took them from."""
    whole = torch.arange(3 * 12).view(3, 12)
    shard = _StridedShard(1, split_factor=2)
    text = dims_of([shard], TP, whole.shape)  # type: ignore[arg-type]
    parts = [piece.chunk(2, dim=1) for piece in whole.chunk(2, dim=1)]
    locals_ = {rank: torch.cat([p[rank] for p in parts], dim=1) for rank in range(2)}
    shapes = {r: (Mesh.of(tp=(r, 2)), tuple(t.shape)) for r, t in locals_.items()}
    placement = place(parse_dims(text), shapes)
    for rank, local in locals_.items():
        for piece in placement.pieces[rank]:
            source = whole[piece.logical.slices]
            assert torch.equal(local[piece.local.slices], source)
