"""Settings of a graft: everything that is wrong is told at once, before anything starts."""

from __future__ import annotations

import socket

import pytest
import torch

from twinrun.errors import PeerError, UsageError
from twinrun.grafting.inlet import Inlet
from twinrun.grafting.settings import Settings, split_address, split_dims, split_transform
from twinrun.grafting.wire import encode


def problems(**given: object) -> str:
    """What ``check`` says of these settings."""
    with pytest.raises(UsageError) as caught:
        Settings(**{"role": "target", "b2t": "x", **given}).check()  # type: ignore[arg-type]
    return str(caught.value)


def test_an_address_that_does_not_resolve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host is looked up before anything starts."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "'nowhere' does not resolve" in problems(address="nowhere:29500")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"b2t": ""}, "nothing would flow"),
        ({"t2b": "("}, "--t2b"),
        ({"source": "runs/a", "t2b": "y"}, "cannot flow into a capture"),
        ({"baseline_ranks": 0}, "less than 1"),
        ({"transforms": ("f",)}, "--transform"),
        ({"dims": ("x=t h[",)}, "--graft-dims"),
        ({"buffer_bytes": -1}, "--graft-buffer"),
        ({"gradient": "both"}, "--graft-gradient"),
        ({"mesh": "tp"}, "--mesh"),
        ({"address": "127.0.0.1"}, "no HOST:PORT"),
        ({"timeout_s": float("nan")}, "--graft-timeout"),
    ],
)
def test_each_setting_is_checked(given: dict[str, object], word: str) -> None:
    """The message names the flag."""
    assert word in problems(**given)


def test_settings_travel_through_the_environment() -> None:
    """Rendered and read back they are the same, lists included."""
    one = Settings(
        "baseline", b2t="name == 'x'", transforms=("a=b.c", "d.e"), dims=("x=t h",), strict=True,
        buffer_bytes=1 << 20, address="[::1]:29999", mesh="tp=2", log="off",
    )  # fmt: skip
    assert Settings.from_environment(one.to_environment()) == one
    assert split_address("[::1]:29999") == ("::1", 29999)
    assert split_transform("a.b*=pkg.mod.fn") == ("a.b*", "pkg.mod.fn")
    assert split_dims("target:x=t h[tp]") == ("target", "x", "t h[tp]")


class _Stalled:
    """A pipe whose writer stops after some bytes."""

    kind = "test"

    def __init__(self, held: bytes) -> None:
        self._held = torch.frombuffer(bytearray(held), dtype=torch.uint8)
        self._at = 0

    def read(self, address: int, nbytes: int) -> int:
        from twinrun.grafting.memory import memmove

        count = min(nbytes, self._held.numel() - self._at)
        memmove(address, self._held.data_ptr() + self._at, count)
        self._at += count
        return count

    def withdraw(self) -> int:
        return 0

    def write(self, address: int, nbytes: int) -> int:
        raise NotImplementedError

    def close(self) -> None:
        pass


class _Nowhere:
    def define(self, header: object) -> bool:
        return False

    def payload(self, header: object) -> None:
        return None


@pytest.mark.parametrize("view", [slice(None), slice(0, 600)])
def test_a_message_that_stops_in_its_middle_is_not_waited_for_longer_than_the_timeout(
    view: slice,
) -> None:
    """Whoever stalls with a message half sent is named."""
    head = encode({"p": [0, "x", 0]}, 4 * 1200)
    inlet = Inlet(_Stalled(head + bytes(100)), "baseline rank 0", lambda: None, 0.2, _Nowhere())
    assert inlet.poll() == {"p": [0, "x", 0]} and inlet.left == 4800
    with pytest.raises(PeerError, match="baseline rank 0 stopped in the middle of a message"):
        inlet.read_tensor(torch.zeros(1, 1200)[:, view], torch.float32)
