"""Models that torch itself distributes: parallelize_module, FSDP, collectives that are still running."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import TORCHRUN, names, program, read, run

pytestmark = pytest.mark.ranks

PROGRAM = """
    import torch, torch.distributed as dist
    import torch.distributed._functional_collectives as funcol
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel, RowwiseParallel, parallelize_module,
    )

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return x + self.down(torch.relu(self.up(x)))

    class Plain(nn.Sequential): pass
    class Parallel(nn.Sequential): pass
    class Sharded(nn.Sequential): pass
    class Older(nn.Sequential): pass

    class Gathering(nn.Module):
        def forward(self, x):
            return funcol.all_reduce(x, "sum", dist.group.WORLD)

    def build(kind):
        torch.manual_seed(0)
        return kind(Block(), Block())

    dist.init_process_group("gloo")
    x = torch.ones(2, 4)
    build(Plain)(x).sum().backward()

    tp = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    model = build(Parallel)
    for block in model:
        parallelize_module(block, tp, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    model(x).sum().backward()

    dp = init_device_mesh("cpu", (2,), mesh_dim_names=("dp",))
    model = build(Sharded)
    for block in model:
        fully_shard(block, mesh=dp)
    fully_shard(model, mesh=dp)(x).sum().backward()

    model = build(Older)
    for place, block in enumerate(model):
        model[place] = FullyShardedDataParallel(block, device_id=torch.device("cpu"))
    FullyShardedDataParallel(model, device_id=torch.device("cpu"))(x)

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.gather = Gathering()

        def forward(self, x):
            running = self.gather(x)
            kind = type(running).__name__
            return running.wait() if hasattr(running, "wait") else running, kind

    total, kind = Holder()(torch.full((2,), float(dist.get_rank() + 1)))
    assert kind == "AsyncCollectiveTensor", kind
    assert total.tolist() == [3.0, 3.0]
    dist.destroy_process_group()
"""


def test_distributed_models_pair_with_the_plain_one(tmp_path: Path) -> None:
    """The plain model's names and values, whatever distributes it; unfinished collectives are awaited."""
    out = tmp_path / "a"
    ended = run(out, [*TORCHRUN, program(tmp_path, PROGRAM)], "--taps", "modules")
    assert ended.code == 0, ended.err
    plain = [name for name in names(out) if name[0] in ":01"]
    for label in ("Parallel", "Sharded", "Older"):
        own = [name for name in names(out) if name.startswith((f"{label}:", f"{label}."))]
        assert [n.removeprefix(label).removeprefix(".") for n in own] == plain, label
    capture = read(out)
    for r in capture.records:
        if r.name == "Holder.gather:output":
            assert capture.tensor(r).tolist() == [3.0, 3.0]
    by_name = {r.name: capture.tensor(r).clone() for r in capture.records if r.rank == 0}
    for label in ("Parallel", "Sharded", "Older"):
        assert torch.allclose(by_name[f"{label}:output"], by_name[":output"])
    held = {(r.name, r.rank): dict(r.mesh) for r in capture.records}
    assert held["Parallel.0.up:output", 1]["tp"] == (1, 2)
    assert held["Sharded.0.up:output", 1]["dp"] == (1, 2)
    assert not any(process.problems for process in capture.processes)
