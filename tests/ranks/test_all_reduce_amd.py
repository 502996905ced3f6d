"""The line on AMD GPUs, with a stand-in for aiter: no AMD GPU was at hand."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from world import run_ranks

from twinrun.collectives import aiter, probe
from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.probe import DeviceFacts

pytestmark = pytest.mark.ranks


class _StandIn:
    """aiter's communicator as far as it is used: sums, refuses odd sizes, closes."""

    def __init__(self, group: Any, device: torch.device) -> None:
        self.group, self.disabled, self.closed = group, False, 0

    def custom_all_reduce(self, x: torch.Tensor) -> torch.Tensor | None:
        if x.numel() % 8:
            return None
        out = x.clone()
        dist.all_reduce(out, group=self.group)
        return out

    def close(self) -> None:
        self.closed += 1


def _pretend(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(probe, "describe", lambda device: DeviceFacts("hip", "AMD MI300X", (9, 4)))
    monkeypatch.setattr(probe, "_candidates", lambda device: ("aiter",))
    if installed:
        stand_in = ModuleType("stand_in")
        stand_in.CustomAllreduce = _StandIn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, aiter._MODULE, stand_in)


def _line(rank: int, size: int, installed: bool, deterministic: bool) -> list[tuple[str, str, str]]:
    told = []
    with pytest.MonkeyPatch.context() as patch:
        _pretend(patch, installed)
        with AllReduce(deterministic=deterministic) as ar:
            for numel in (16, 5):
                x = torch.full((numel,), 1.0 + rank)
                assert torch.equal(ar(x), torch.full((numel,), 3.0))
                assert torch.equal(ar(x, out=x), torch.full((numel,), 3.0))
                chosen = ar.plan(x)
                told.append((chosen.backend, chosen.algorithm, chosen.order))
    return told


@pytest.mark.parametrize(
    ("installed", "deterministic", "expected"),
    [
        (True, False, ("aiter", "aiter", "library")),
        (False, False, ("gloo", "library", "library")),
        (True, True, ("gloo", "gather_sum", "ranks")),
    ],
)
def test_the_line_on_amd(
    installed: bool, deterministic: bool, expected: tuple[str, str, str]
) -> None:
    """The ordered sum when it is asked for, else aiter where it imports, else the library."""
    for told in run_ranks(2, _line, installed, deterministic):
        assert told == [expected, expected]
