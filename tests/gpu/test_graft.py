"""Grafts of GPU tensors: same values, own stream order, mixed ends. Skipped where there is no GPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "ranks"))
from graft_jobs import run_jobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def mixed(role: str, rank: int, world: int, devices: dict[str, str], **options: Any) -> bool:
    """Each side on its own device and stream, both directions."""
    import twinrun as tr
    from twinrun.grafting import joining
    from twinrun.grafting.settings import Settings

    settings = Settings(role=role, b2t="name == 'x'", t2b="name == 'y'", timeout_s=60, **options)
    os.environ.update(settings.to_environment())
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(world)})
    device = torch.device(devices[role])
    stream = torch.cuda.Stream() if device.type == "cuda" else None
    with torch.cuda.stream(stream):
        for step in range(3):
            x = torch.full((1 << 20,), float(step if role == "baseline" else -1), device=device)
            for _ in range(50):
                x = x + 0  # work in flight that a copy must not overtake
            got = tr.graft("x", x)
            assert got.device == device and torch.equal(
                got.cpu(), torch.full((1 << 20,), float(step))
            )
            y = torch.full((3, 5), float(step + 7 if role == "target" else -1), device=device).t()
            assert torch.equal(tr.graft("y", y).cpu(), torch.full((5, 3), float(step + 7)))
            tr.step()
    session = joining._session
    assert session is not None
    joining._leave()
    return not session.ended and session.journal.failed == 0


@pytest.mark.parametrize("devices", [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_device_ends_get_the_others_values(devices: tuple[str, str]) -> None:
    """One GPU shared by both jobs, and a GPU on one end only."""
    named = dict(zip(("baseline", "target"), devices, strict=True))
    assert all(run_jobs(mixed, devices=named).values())
