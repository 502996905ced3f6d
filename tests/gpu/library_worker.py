"""One rank of the test of ``AllReduce`` over NCCL; started by torchrun."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist

from twinrun.collectives.all_reduce import AllReduce

DTYPES = (
    torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int16, torch.int32,
    torch.uint8, torch.float8_e4m3fn,
)  # fmt: skip


def _parts(size: int, numel: int, dtype: torch.dtype, device: torch.device) -> list[torch.Tensor]:
    parts = []
    for rank in range(size):
        made = torch.Generator().manual_seed(rank)
        scale = torch.exp2(torch.randint(-6, 6, (numel,), generator=made).float())
        values = torch.randn(numel, generator=made) * scale
        parts.append((values if dtype.is_floating_point else values.abs()).to(dtype).to(device))
    return parts


def _expected(parts: list[torch.Tensor]) -> torch.Tensor:
    dtype = parts[0].dtype
    wide = torch.float32 if dtype.is_floating_point and dtype.itemsize < 4 else dtype
    total = parts[0].to(wide)
    for part in parts[1:]:
        total = total + part.to(wide)
    return total.to(dtype)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def check_orders(rank: int, size: int, device: torch.device) -> None:
    """With an order asked for, NCCL's all-gather and the sum have that order's bits."""
    with AllReduce(backend="nccl", deterministic=True) as ar:
        for dtype in DTYPES:
            for numel in (1, 1001, 300_000):
                parts = _parts(size, numel, dtype, device)
                y = ar(parts[rank])
                assert torch.equal(_bits(y), _bits(_expected(parts))), (dtype, numel)


def check_odd(rank: int, size: int, device: torch.device) -> None:
    """0 elements, strided and in-place tensors, CPU tensors beside CUDA ones, subgroups, one rank."""
    pair = [dist.new_group([2 * i, 2 * i + 1]) for i in range(size // 2)][rank // 2]
    alone = [dist.new_group([r]) for r in range(size)][rank]
    total = float(size * (size + 1) // 2)
    with AllReduce() as every, AllReduce(pair) as near, AllReduce(alone) as own:
        x = torch.full((6, 5), 1.0 + rank, device=device)
        assert torch.equal(every(x.t()), torch.full((5, 6), total, device=device))
        assert every(x[:0]).shape == (0, 5)
        assert near(x)[0, 0].item() == 2 * (rank // 2 * 2) + 3
        assert torch.equal(own(x), x) and own.plan(x).backend == "none"
        assert every(x, out=x) is x and x[0, 0].item() == total
        assert every._line(device).facts.peer_access is True


def check_capture(size: int, device: torch.device) -> None:
    """A captured NCCL all-reduce replays with what its input holds then."""
    with AllReduce(backend="nccl") as ar:
        x = torch.ones(1000, device=device)
        ar(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with ar.capture(), torch.cuda.graph(graph):
            y = ar(x)
        for value in (2.0, 3.0):
            x.fill_(value)
            graph.replay()
            assert torch.equal(y, torch.full_like(y, value * size))


def main() -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    check_orders(rank, size, device)
    check_odd(rank, size, device)
    check_capture(size, device)
    dist.barrier()
    sys.stdout.write(f"RANK {rank} RIGHT\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
