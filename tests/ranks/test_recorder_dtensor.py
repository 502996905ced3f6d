"""DTensors and awaited collectives, recorded on two ranks of gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twinrun.layout.parse import parse_dims
from twinrun.recorder.reader import open_capture

pytestmark = pytest.mark.ranks

PROGRAM = """
import sys, torch, torch.distributed as dist, twinrun as tr
import torch.distributed._functional_collectives as functional
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
with tr.capture(sys.argv[1], buffer_bytes=1 << 20):
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("dp", "tp"))
    rank = dist.get_rank()
    whole = torch.arange(30.0).view(5, 6)
    tr.dump("shard", distribute_tensor(whole, mesh, [Replicate(), Shard(1)]))
    tr.dump("uneven", distribute_tensor(whole, mesh, [Replicate(), Shard(0)]))
    tr.dump("both", distribute_tensor(whole, mesh, [Shard(1), Shard(1)]))
    tr.dump("partial", DTensor.from_local(whole * (rank + 1), mesh, [Replicate(), Partial()]))
    tr.dump("scalar", DTensor.from_local(torch.tensor(1.0), mesh, [Replicate(), Partial()]))
    tr.dump("largest", DTensor.from_local(whole, mesh, [Replicate(), Partial("max")]))
    leaf = distribute_tensor(whole, mesh, [Replicate(), Shard(1)]).requires_grad_()
    tr.dump("leaf", leaf * 2)
    tr.dump("noted", distribute_tensor(whole, mesh, [Replicate(), Shard(1)]), dims="t h[tp]")
    tr.dump("awaited", functional.all_reduce(torch.ones(3), "sum", mesh["tp"]))
    plain = init_device_mesh("cpu", (2,))
    tr.dump("unnamed", distribute_tensor(whole, plain, [Shard(0)]))
    dist.destroy_process_group()
"""


@pytest.mark.timeout(180)
def test_what_a_dtensor_says_of_itself_is_recorded(tmp_path: Path) -> None:
    """The local part, its placements as dims text, the mesh's coordinates; an annotation wins."""
    (tmp_path / "program.py").write_text(PROGRAM)
    run = tmp_path / "run"
    ranks = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py"), str(run)],
            env={
                **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
                "MASTER_PORT": "29613", "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [rank.wait(150) for rank in ranks] == [0, 0]
    capture = open_capture(run)
    assert capture.problems == ()
    found = {(record.name, record.rank): record for record in capture.records}
    dims = {name: found[name, 0].dims for name, _ in found}
    assert dims == {
        "shard": "d0 d1[tp] # dp:replicated",
        "uneven": "d0[tp] d1 # dp:replicated",
        "both": "d0 d1[dp,tp]",
        "partial": "d0 d1 [tp:partial] # dp:replicated",
        "scalar": "[tp:partial] # dp:replicated",
        "largest": None,
        "leaf": "d0 d1[tp] # dp:replicated",
        "noted": "t h[tp]",
        "awaited": None,
        "unnamed": "d0[axis0] d1",
    }
    for text in dims.values():
        assert text is None or parse_dims(text) is not None
    assert found["shard", 1].dims_source == "dtensor"
    assert found["noted", 1].dims_source == "annotation"
    assert dict(found["shard", 1].mesh) == {"dp": (0, 1), "tp": (1, 2)}
    assert [found["uneven", rank].shape for rank in range(2)] == [(3, 6), (2, 6)]
    assert capture.tensor(found["shard", 1])[0].tolist() == [3.0, 4.0, 5.0]
    assert capture.tensor(found["leaf", 1])[0].tolist() == [6.0, 8.0, 10.0]
    assert capture.tensor(found["awaited", 0]).tolist() == [2.0, 2.0, 2.0]
