"""Direct channels between two processes, on a stand-in device: same values, bounded memory, no hangs."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
import stand_in_device
import test_graft_exchange as exchange
import torch
from graft_jobs import Jobs, run_jobs
from test_graft_exchange import give, make, take, tensor

from twinrun.errors import PeerError
from twinrun.grafting.exchange import Exchange

pytestmark = pytest.mark.ranks
MIB = 1 << 20


def channel(ex: Exchange) -> str:
    """What this rank's tensors last travelled over."""
    other = "target" if ex.me.role == "baseline" else "baseline"
    return next(iter(ex.roster.others(other))).channel


def meet(ex: Exchange, step: int) -> None:
    """The baseline waits for the target, so that its orders of the last step are known."""
    ready = torch.zeros(1)
    (take if ex.me.role == "baseline" else give)(ex, step, "ready", ready)


def unchanged(
    role: str, rank: int, world: int, which: str, late_s: float, shared: bool, **options: Any
) -> bool:
    stand_in_device.use("gpu" if shared else f"gpu-{role}{rank}", late_s=late_s)
    made: list[Exchange] = []
    exchange.make = lambda *given, **more: made.append(make(*given, **more)) or made[0]
    done = getattr(exchange, which)(role, rank, world, **options)
    assert made[0].failure is None, made[0].failure
    return bool(done)


@pytest.mark.parametrize(("late_s", "shared"), [(0.0, True), (0.01, True), (0.01, False)])
@pytest.mark.parametrize(
    ("body", "baseline", "target"), [("swapped", 1, 1), ("resharded", 4, 2), ("pipeline", 2, 2)]
)
def test_what_holds_through_the_host_holds_directly(
    body: str, baseline: int, target: int, late_s: float, shared: bool
) -> None:
    """Swapped orders, other layouts, sums and pipelines; on one GPU, where payloads are gifts, or several;
    also where the device is behind the processor.
    """
    options = {"which": body, "late_s": late_s, "shared": shared}
    assert all(run_jobs(unchanged, baseline, target, **options).values())


def steady(role: str, rank: int, world: int, gifts: bool, **options: Any) -> tuple[str, int, bool]:
    device = stand_in_device.use("gpu", gifts=gifts)
    ex = make(role, rank, world, **options)
    big = tensor(3 * MIB // 4)
    for step in range(6):
        meet(ex, step)
        if role == "baseline":
            give(ex, step, "x", big + step)
        else:
            assert torch.equal(take(ex, step, "x", big).tensor, big + step)
    over, opened, held = channel(ex), len(device.opened), device.exporting.held_bytes
    ex.close()
    return over, opened if role == "baseline" else held, not device.opened


@pytest.mark.parametrize("gifts", [True, False])
def test_a_steady_flow_uses_few_pads_and_gives_them_back(gifts: bool) -> None:
    """However many values pass, a receiver opens three pads of their size and the trial's; then none."""
    ends = run_jobs(steady, gifts=gifts)
    over, opened, closed = ends["baseline", 0]
    assert over == "cuda ipc" and opened <= 5 and closed
    _, held, _ = ends["target", 0]
    assert held <= 3 * 3 * MIB + 64


def apart(role: str, rank: int, world: int, **options: Any) -> bool:
    """The receiver comes late, to more messages than a board has slots and blocks of many sizes."""
    stand_in_device.use(f"gpu-{role}")
    ex = make(role, rank, world, buffer_bytes=24 * MIB, **options)
    small, sizes = tensor(7), [2, 3, 5, 9, 4, 7]
    for step in range(3):
        meet(ex, step)
        for at in range(200):
            if role == "baseline":
                give(ex, step, f"s{at}", small + at)
            else:
                if at == 0 and step:
                    time.sleep(0.2)
                assert torch.equal(take(ex, step, f"s{at}", small).tensor, small + at)
        for mib in sizes:
            value = torch.full((mib * MIB // 4,), float(mib + step))
            if role == "baseline":
                give(ex, step, f"b{mib}", value)
            else:
                assert torch.equal(take(ex, step, f"b{mib}", value).tensor, value)
    ex.close()
    return ex.failure is None


def test_a_receiver_that_is_elsewhere_is_waited_for_within_the_buffer() -> None:
    """Slots, blocks and the buffer run out; the sender waits, gives idle blocks back, and goes on."""
    assert all(run_jobs(apart).values())


def starved(role: str, rank: int, world: int, **options: Any) -> bool:
    """Memory runs out on the receiver while values flow, and senders share what it has."""
    device = stand_in_device.use("gpu")
    ex = make(role, rank, world, buffer_bytes=5 * MIB, **options)
    for step in range(8):
        meet(ex, step)
        for at, mib in enumerate((1, 3, 1, 2)):
            whole = tensor(mib * MIB // 4) + 100 * step + at
            if role == "baseline":
                mine = whole.chunk(world)[rank]
                give(ex, step, f"x{at}", mine, dims="t[tp]", tp=(rank, world))
                continue
            if step == 5:
                device.exporting.refuses = 3
            got = take(ex, step, f"x{at}", whole, dims="t")
            assert torch.equal(got.tensor, whole), (step, at)
    ex.close()
    return ex.failure is None


@pytest.mark.parametrize("senders", [1, 2, 3])
def test_what_the_receiver_has_no_memory_for_comes_another_way(senders: int) -> None:
    """A pad that cannot be kept, a full buffer, senders that share it: every value arrives."""
    assert all(run_jobs(starved, senders, 1).values())


def refused(role: str, rank: int, world: int, devices: dict[str, Any], **options: Any) -> str:
    stand_in_device.use(**devices[role])
    ex = make(role, rank, world, **options)
    x = tensor(300_000)
    for step in range(3):
        meet(ex, step)
        if role == "baseline":
            give(ex, step, "x", x + step)
        else:
            assert torch.equal(take(ex, step, "x", x).tensor, x + step)
    over = channel(ex)
    ex.close()
    assert ex.failure is None, ex.failure
    return over


GPUS = {"baseline": {"identity": "a"}, "target": {"identity": "b"}}


@pytest.mark.parametrize(
    ("devices", "options", "told"),
    [
        (GPUS, {"channel": "host"}, "(cuda ipc: host was asked for)"),
        (
            GPUS,
            {"buffer_bytes": MIB},
            "(cuda ipc: its 1.1 MiB are more than the 1 MiB that --graft-buffer allows",
        ),
        (GPUS, {"channel": "nccl"}, "nccl was asked for; nccl: the sender has no shared NCCL"),
        (
            {"baseline": {"identity": "b", "refuses": "no peer access"}, "target": GPUS["target"]},
            {},
            "(cuda ipc: no peer access; nccl: both use one GPU)",
        ),
        (
            {**GPUS, "target": {"identity": "", "receives": False}},
            {},
            "the receiver uses no GPU; nccl: the receiver uses no GPU",
        ),
    ],
)
def test_what_cannot_go_directly_goes_through_the_host_and_says_why(
    devices: dict[str, Any], options: dict[str, Any], told: str
) -> None:
    """A forced channel, too small a buffer, a driver that refuses, a receiver without a GPU."""
    over = run_jobs(refused, devices=devices, **options)["baseline", 0]
    assert over.startswith("host memory over shared memory") and told in over


def unfinished(role: str, rank: int, world: int, **options: Any) -> str:
    """The sender's device never gets there, and the sender is killed."""
    device = stand_in_device.use(f"gpu-{role}")
    ex = make(role, rank, world, **options)
    x = tensor(1000)
    for step in range(3):
        meet(ex, step)
        if role == "baseline":
            if step == 2:
                device._late_s = None
            give(ex, step, "x", x)
            if step == 2:
                time.sleep(0.3)
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            try:
                take(ex, step, "x", x)
            except PeerError as error:
                return str(error)
    return "nothing happened"


def test_a_sender_killed_before_its_device_was_done_is_named() -> None:
    """A value that was announced and never became ready ends the graft, and nothing hangs."""
    ends = Jobs(unfinished, 1, 1).results(killed=(("baseline", 0),))
    assert "baseline rank 0 died" in ends["target", 0]


def hostile(role: str, rank: int, world: int, message: dict[str, Any], **options: Any) -> str:
    """The sender refers to memory that it has not shown, or that lies outside of it."""
    from twinrun.grafting.message import Message

    stand_in_device.use(f"gpu-{role}")
    ex = make(role, rank, world, **options)
    x = tensor(1000)
    try:
        if role == "target":
            for step in range(3):
                meet(ex, step)
                take(ex, step, "x", x)
            return "taken"
        for step in range(2):
            meet(ex, step)
            give(ex, step, "x", x)
        meet(ex, 2)
        peer = next(iter(ex.roster.others("target")))
        if "t" in message:
            peer.link.send(message)
        else:
            header = {"p": [2, "x", 0], "h": 0, "k": 0, **message}
            peer.outlet.send(Message(json.dumps(header)))
        time.sleep(1.0)
    except PeerError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"g": [7, 4000, 9]}, "was not given"),
        ({"g": [0, 2 * MIB, 9]}, "beyond its own pad"),
        ({"g": [0, -1, 9]}, "lies nowhere"),
        ({"g": [0, 1 << 60, 9]}, "lies nowhere"),
        ({"g": "x"}, "lies nowhere"),
        ({"pair": [0, 4000]}, "without having met"),
        ({"t": "room", "nbytes": 0}, "asks for room for 0 bytes"),
        ({"t": "room", "nbytes": -1}, "asks for room for -1 bytes"),
        ({"t": "drop", "pads": [77]}, "gives back what it does not have"),
        ({"t": "drop", "pads": [[]]}, "sent something wrong"),
        ({"t": "ask", "board": True, "gpu": ""}, "sent something wrong"),
    ],
)
def test_references_are_checked(message: dict[str, Any], told: str) -> None:
    """Nothing that a peer says makes this process read outside of what it opened."""
    assert told in run_jobs(hostile, message=message)["target", 0]
