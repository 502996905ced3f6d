"""Twinrun's all-reduce beside NCCL's and torch's own, on the ranks of one group.

Numbers are checked before anything is timed: against a float64 sum of fresh inputs of a wide range,
and bit for bit across the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.distributed as dist

from twinrun.collectives import graph_timing
from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.symmetric_memory import SymmetricAllocation
from twinrun.errors import PeerError, UnavailableError

CONTENDERS = ("twinrun", "twinrun tree", "nccl", "torch one-shot", "torch two-shot")
_UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24}


@dataclass(frozen=True, slots=True)
class Timing:
    """One contender at one size: microseconds per operation in a graph, and what it used."""

    nbytes: int
    contender: str
    us: float
    used: str


class Contest:
    """Buffers for four pairs of the largest size, and the contenders. Made by all ranks together."""

    def __init__(self, device: torch.device, dtype: torch.dtype, most_bytes: int) -> None:
        self.device, self.dtype = device, dtype
        self._group = _world()
        self.exchange = Exchange(self._group)
        self._step = -(-most_bytes // 512) * 512
        size = 2 * graph_timing.PAIRS * self._step
        self._memory = SymmetricAllocation(self._group, device, size)
        self._plain = torch.empty(size, dtype=torch.uint8, device=device)
        self.ranks = AllReduce(order="ranks", device=device)
        self.tree = AllReduce(order="tree", device=device)

    def close(self) -> None:
        """Free all of it."""
        self.ranks.close()
        self.tree.close()
        self._memory.free()

    def pairs(self, nbytes: int, symmetric: bool) -> list[graph_timing.Pair]:
        """Four pairs of input and output, rotated in a graph."""
        flat = self._memory.tensor if symmetric else self._plain
        found = []
        for begin in range(0, flat.numel(), 2 * self._step):
            x = flat[begin : begin + nbytes].view(self.dtype)
            y = flat[begin + self._step : begin + self._step + nbytes].view(self.dtype)
            found.append((x, y))
        return found

    def call(self, contender: str) -> graph_timing.Call:
        """What one operation of a contender is."""
        group = self._group.group_name
        calls: dict[str, graph_timing.Call] = {
            "twinrun": lambda x, y: self.ranks(x, out=y),
            "twinrun tree": lambda x, y: self.tree(x, out=y),
            "nccl": lambda x, y: dist.all_reduce(x),
            "torch one-shot": lambda x, y: torch.ops.symm_mem.one_shot_all_reduce_out(
                x, "sum", group, y
            ),
            "torch two-shot": lambda x, y: torch.ops.symm_mem.two_shot_all_reduce_(x, "sum", group),
        }
        return calls[contender]

    def used(self, contender: str, x: torch.Tensor) -> str:
        """The backend and algorithm behind a contender for ``x``."""
        if not contender.startswith("twinrun"):
            return contender
        plan = (self.tree if contender == "twinrun tree" else self.ranks).plan(x)
        return f"{plan.backend} {plan.algorithm}, {plan.order}"

    def check(self, nbytes: int, seed: int) -> dict[str, float]:
        """The relative error (L2) of Twinrun's sums in both orders, and that all ranks agree.

        ``UnavailableError`` for a sum that is further from float64 than rounding explains,
        ``PeerError`` where two ranks hold different bits.
        """
        count, size = nbytes // self.dtype.itemsize, self.exchange.size
        parts = [_wide(count, self.dtype, self.device, seed * 64 + rank) for rank in range(size)]
        exact = torch.stack([part.double() for part in parts]).sum(0)
        errors = {}
        for name, reduce in (("ranks", self.ranks), ("tree", self.tree)):
            summed = reduce(parts[self.exchange.rank])
            errors[name] = float((summed.double() - exact).norm() / exact.norm())
            self._same_bits(name, summed)
            if not errors[name] <= 4 * size * _UNIT[self.dtype]:
                raise UnavailableError(f"order {name} is wrong at {nbytes} bytes: {errors[name]}")
        return errors

    def _same_bits(self, name: str, summed: torch.Tensor) -> None:
        bits = summed.view(torch.uint8).long()
        weights = torch.arange(1, bits.numel() + 1, device=self.device) * 2654435761 % 1000003
        digest = [int(bits.sum()), int((bits * weights).sum())]
        if self.exchange.gather_json(digest) != [digest] * self.exchange.size:
            raise PeerError(f"order {name}: the ranks hold different bits.")

    def time(self, contender: str, nbytes: int) -> Timing:
        """Microseconds of one operation at this size, by the method of ``graph_timing``."""
        pairs = self.pairs(nbytes, symmetric=contender.startswith("torch"))
        for x, _ in pairs:
            x.normal_()
        self.exchange.barrier()
        count = graph_timing.operations(nbytes)
        with self._registered():
            graph = graph_timing.capture(self.call(contender), pairs, count)
            used = self.used(contender, pairs[0][0])
        us = graph_timing.replay_us(graph, count, self._memory.barrier, self.exchange.cpu_group)
        return Timing(nbytes, contender, us, used)

    @contextmanager
    def _registered(self) -> Iterator[None]:
        with self.ranks.capture(), self.tree.capture():
            yield

    def eager_us(self, nbytes: int, calls: int = 2000) -> float:
        """Microseconds from one call in Python to the next, out of place, nothing waited for."""
        x = torch.randn(nbytes // self.dtype.itemsize, device=self.device).to(self.dtype)
        self.ranks(x)
        torch.cuda.synchronize(self.device)
        self.exchange.barrier()
        began = perf_counter()
        for _ in range(calls):
            self.ranks(x)
        spent = perf_counter() - began
        torch.cuda.synchronize(self.device)
        return max(float(us) for us in self.exchange.gather_json(spent / calls * 1e6))


def _world() -> dist.ProcessGroup:
    group = dist.group.WORLD
    assert group is not None
    return group


def _wide(count: int, dtype: torch.dtype, device: torch.device, seed: int) -> torch.Tensor:
    """Fresh normal numbers over 24 binary orders of magnitude, the same on every rank."""
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(count, generator=generator, device=device)
    scale = torch.randint(-16, 8, (count,), generator=generator, device=device)
    return torch.ldexp(x, scale).to(dtype)
