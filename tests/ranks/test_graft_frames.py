"""Values of several senders that are put together where they arrive, on a stand-in device."""

from __future__ import annotations

import time
from typing import Any

import pytest
import stand_in_device
import torch
from graft_jobs import run_jobs
from test_graft_direct import meet
from test_graft_exchange import give, make, take

from twinrun.grafting import frame as frames
from twinrun.grafting import receiving
from twinrun.grafting.exchange import Exchange

pytestmark = pytest.mark.ranks
ROWS, COLUMNS = 48, 4096


class Counts:
    """How many values came in one piece, and how many were copied together."""

    def __init__(self) -> None:
        self.given = self.copied = 0
        give, together = frames.Frame.give, frames.bring_together

        def counted(frame: frames.Frame) -> torch.Tensor:
            self.given += 1
            return give(frame)

        def copied(tiles: Any) -> None:
            self.copied += 1
            together(tiles)

        frames.Frame.give = counted  # type: ignore[method-assign]
        receiving.bring_together = copied  # type: ignore[attr-defined]


def value(step: int, at: int = 0) -> torch.Tensor:
    """A whole value that no other point has."""
    seed = torch.Generator().manual_seed(1000 * step + at)
    return torch.randn(ROWS, COLUMNS, generator=seed)


def give_columns(ex: Exchange, step: int, name: str, whole: torch.Tensor, **more: Any) -> None:
    world, rank = 4, ex.me.rank
    give(ex, step, name, whole.chunk(world, 1)[rank], dims="t h[tp]", tp=(rank, world), **more)


def take_columns(ex: Exchange, step: int, name: str, whole: torch.Tensor, **more: Any) -> None:
    rank, wanted = ex.me.rank, whole.chunk(2, 1)[ex.me.rank]
    got = take(ex, step, name, wanted, dims="t h[tp]", tp=(rank, 2), **more)
    assert got.tensor is not None and torch.equal(got.tensor, wanted), (step, name)
    assert got.tensor.is_contiguous() and not got.tensor._is_view()


def steady(role: str, rank: int, world: int, shared: bool, late_s: float, **options: Any) -> Any:
    device = stand_in_device.use("gpu" if shared else f"gpu-{role}{rank}", late_s=late_s)
    counts, ex, kept = Counts(), make(role, rank, world, **options), []
    for step in range(30):
        meet(ex, step)
        if role == "baseline":
            give_columns(ex, step, "x", value(step))
            continue
        take_columns(ex, step, "x", value(step))
        kept.append(device.exporting.held_bytes)
    ex.close()
    assert ex.failure is None, ex.failure
    assert not device.opened and ex.roster.device_buffer.used_bytes == 0
    return counts.given, counts.copied, max(kept, default=0)


@pytest.mark.parametrize(("shared", "late_s"), [(True, 0.0), (False, 0.0), (False, 0.003)])
def test_boxes_of_several_senders_come_in_one_piece(shared: bool, late_s: float) -> None:
    """From the second step on nothing is copied by the receiver, and three frames are all it opens."""
    for (role, _), (given, copied, held) in run_jobs(
        steady, 4, 2, shared=shared, late_s=late_s
    ).items():
        if role == "target":
            assert given == 29 and copied == 0
            assert held <= 4 * ROWS * COLUMNS * 2 + 1024


def out_of_step(role: str, rank: int, world: int, **options: Any) -> Any:
    """One sender's first values come late, through the host, so that its pads are behind the others'."""
    stand_in_device.use("gpu")
    counts, ex, found = Counts(), make(role, rank, world, **options), []
    for step in range(12):
        if step:
            meet(ex, step)
        for at in range(3):
            if role == "baseline":
                if step == 0 and rank == 1 and at == 1:
                    time.sleep(0.5)
                give_columns(ex, step, "x", value(step, at), occurrence=at)
                continue
            before = counts.copied
            take_columns(ex, step, "x", value(step, at), occurrence=at)
            found.append(counts.copied - before)
    ex.close()
    assert ex.failure is None, ex.failure
    return found


def test_senders_that_are_out_of_step_come_together_again() -> None:
    """Right values throughout, and no copies any more after the first steps."""
    for (role, _), found in run_jobs(out_of_step, 4, 2).items():
        if role == "target":
            assert sum(found[9:]) == 0, found


def misused(role: str, rank: int, world: int, how: str, **options: Any) -> Any:
    device = stand_in_device.use("gpu", gifts=how != "driver")
    counts, ex = Counts(), make(role, rank, world, **options)
    for step in range(8):
        meet(ex, step)
        names = ["x", "y", "z"]
        if role == "target":
            if how == "swapped":
                names.reverse()
            if how == "late" and step in (3, 5):
                time.sleep(0.4)
            if how == "no memory" and step == 4:
                device.exporting.refuses = 2
        for at in range(4 if how == "late" else 1):
            for name in names:
                whole = value(step, 10 * at + ord(name))
                (give_columns if role == "baseline" else take_columns)(
                    ex, step, name, whole, occurrence=at
                )
    ex.close()
    assert ex.failure is None, ex.failure
    assert ex.roster.device_buffer.used_bytes == 0 and not device.opened
    return counts.given, counts.copied


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ("swapped", {}),
        ("late", {}),
        ("late", {"buffer_bytes": 3 << 20}),
        ("no memory", {}),
        ("driver", {}),
    ],
)
def test_whatever_happens_to_its_memory_each_value_arrives(
    how: str, options: dict[str, Any]
) -> None:
    """Another order, a receiver that stays away, a full buffer, no memory, none that can be given."""
    for (role, _), (given, _) in run_jobs(misused, 4, 2, how=how, **options).items():
        if role == "target":
            assert (given == 0) == (how == "driver")


def hostile(role: str, rank: int, world: int, message: dict[str, Any], **options: Any) -> str:
    from twinrun.errors import PeerError

    stand_in_device.use("gpu")
    ex = make(role, rank, world, **options)
    try:
        for step in range(3):
            meet(ex, step)
            if role == "target":
                take_columns(ex, step, "x", value(step))
                continue
            give_columns(ex, step, "x", value(step))
            if step == 1 and rank == 0:
                for peer in ex.roster.others("target"):
                    peer.link.send(message)
                time.sleep(1.0)
        time.sleep(2.0 if role == "baseline" else 0.0)
    except PeerError as error:
        time.sleep(1.0)  # the others have heard what was wrong before this one is gone
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            {"t": "room", "nbytes": 4, "tiling": 0},
            "asks for room for boxes that it was not asked for",
        ),
        ({"t": "room", "nbytes": ROWS * COLUMNS, "tiling": 99}, "boxes that it was not asked for"),
        ({"t": "room", "nbytes": 4, "tiling": "0"}, "sent something wrong"),
    ],
)
def test_requests_are_checked(message: dict[str, Any], told: str) -> None:
    """A sender gets room for its own boxes of its own orders, and for nothing else."""
    ends = run_jobs(hostile, 4, 2, message=message)
    assert any(told in end for (role, _), end in ends.items() if role == "target"), ends


def astray(role: str, rank: int, world: int, inside: Any, **options: Any) -> str:
    """The receiver says that boxes go where its own tensor is not."""
    from twinrun.errors import PeerError
    from twinrun.grafting.inside import Inside

    stand_in_device.use("gpu")
    if role == "target":
        Inside.said = staticmethod(lambda *told: inside)  # type: ignore[method-assign]
    ex = make(role, rank, world, **options)
    try:
        for step in range(3):
            meet(ex, step)
            (give_columns if role == "baseline" else take_columns)(ex, step, "x", value(step))
    except PeerError as error:
        time.sleep(1.0)  # the others have heard what was wrong before this one is gone
        return str(error)
    return ""


@pytest.mark.parametrize(
    "inside",
    [
        {"tiling": 0, "shape": [ROWS, 1], "at": [[0, 0]]},
        {"tiling": 0, "shape": [ROWS, COLUMNS], "at": [[0, -1]]},
        {"tiling": 0, "shape": [ROWS], "at": [[0]]},
        {"tiling": 0, "shape": [ROWS, COLUMNS], "at": []},
        {"tiling": 0, "shape": [1 << 30, 1 << 30], "at": [[0, 0]]},
        {"tiling": 0, "shape": [ROWS, 2 * COLUMNS], "at": [[0, COLUMNS]]},
        "x",
    ],
)
def test_places_are_checked(inside: Any) -> None:
    """A sender writes nowhere but into memory that the receiver has opened for just that."""
    ends = run_jobs(astray, 4, 2, inside=inside)
    told = "makes no sense", "beyond its own memory"
    assert any(why in end for why in told for (role, _), end in ends.items() if role == "baseline")
