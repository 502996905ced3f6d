"""Every sharding of a tensor has the fingerprint of the whole."""

from __future__ import annotations

import pytest
import torch
from world import run_ranks

from twinrun import fingerprint
from twinrun.errors import UsageError

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(300)]


def sharded(rank: int, size: int) -> None:
    """Shard and Replicate over a 2 x 2 mesh with uneven sizes; a pending sum is refused."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    torch.manual_seed(0)
    for shape in ((7, 5), (4, 6, 3), (3,)):
        whole = torch.randn(shape)
        for one in (Replicate(), Shard(0), Shard(len(shape) - 1)):
            for two in (Replicate(), Shard(0), Shard(len(shape) - 1)):
                held = distribute_tensor(whole, mesh, [one, two])
                assert fingerprint(held) == fingerprint(whole), (shape, one, two)
    with pytest.raises(UsageError):
        fingerprint(DTensor.from_local(torch.ones(2), mesh, [Partial(), Replicate()]))


def modules(rank: int, size: int) -> None:
    """FSDP over tensor parallel: strided shards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Linear(10, 4))
    first = fingerprint(model)
    parallelize_module(model, mesh["tp"], {"0": ColwiseParallel()})
    assert fingerprint(model) == first
    fully_shard(model, mesh=mesh["dp"])
    assert fingerprint(model) == first


def test_tensors() -> None:
    """A shard counts at its own place, a replica once."""
    run_ranks(4, sharded, timeout_s=240)


def test_modules() -> None:
    """A model keeps its number when it is parallelized."""
    run_ranks(4, modules, timeout_s=240)
