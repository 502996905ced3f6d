"""Who serves the meeting, or came to it first, dies while another one comes."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Any
from unittest.mock import Mock, patch

import pytest
import torch
from graft_jobs import Jobs
from test_graft_exchange import make, take

from twinrun.errors import PeerError
from twinrun.grafting.arrivals import Arrivals
from twinrun.grafting.jobs import free_port
from twinrun.grafting.meeting import Meeting
from twinrun.grafting.point import Rank
from twinrun.grafting.settings import Settings

pytestmark = pytest.mark.ranks


def nothing() -> None:
    """What is called while waiting."""


def test_a_meeting_that_dies_while_it_is_visited_is_served_by_the_visitor() -> None:
    """A store that hangs up and is gone was a rank that died, not another program."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def hang_up() -> None:
        for _ in range(2):  # a visit looks whether somebody listens, and connects
            listening.accept()[0].close()
        listening.close()

    dying = threading.Thread(target=hang_up, daemon=True)
    dying.start()
    settings = Settings(role="target", address=f"127.0.0.1:{port}", b2t="*", meeting_timeout_s=90.0)
    meeting = Meeting.open(settings, nothing)
    assert meeting.serves and meeting.join({"t": "hello"}) == []


def test_who_always_hangs_up_is_no_graft() -> None:
    """A program that closes every connection is told apart from a rank that died."""
    listening = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        while True:
            listening.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    settings = Settings(role="target", address=address, b2t="*", meeting_timeout_s=90.0)
    with pytest.raises(PeerError, match="is in use, and not by a Twinrun graft"):
        Meeting.open(settings, nothing)


def first(role: str, rank: int, world: int, **options: Any) -> str:
    """The baseline comes, and dies before the target does."""
    ex = make(role, rank, world, **options)
    ex.roster.arrivals.wait()
    assert ex.failure is None
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def second(role: str, rank: int, world: int, **options: Any) -> list[str]:
    ex, told = make(role, rank, world, **options), []
    ex.roster.arrivals.wait()
    for step in range(2):
        try:
            take(ex, step, "x", torch.zeros(3))
        except PeerError as error:
            told.append(str(error))
    ex.close()
    return told


def test_who_died_before_it_was_met_ends_the_graft_by_name() -> None:
    """Not point after point as if nobody held it."""
    address = f"127.0.0.1:{free_port()}"
    served = Meeting.open(Settings(role="target", address=address, b2t="*"), nothing)
    jobs = Jobs(first, 1, 0, address=address)
    process, _ = jobs.ranks["baseline", 0]
    process.join(60)
    assert served.serves and process.exitcode == -signal.SIGKILL
    told = Jobs(second, 0, 1, address=address).results()["target", 0]
    assert len(told) == 2 and "baseline rank 0 died or ended before it could be met" in told[0]


def test_who_knocks_while_everything_ends_does_no_harm() -> None:
    """Whoever greets a stranger has begun before anybody waits for its end."""
    arrivals = Arrivals(Settings(role="target", b2t="*"), Rank("target", 0), 1, Mock())
    listening = socket.create_server(("127.0.0.1", 0))

    class Ending(threading.Thread):
        def start(self) -> None:
            arrivals.end()
            super().start()
            arrivals.end()

    with (
        patch.object(threading, "Thread", Ending),
        socket.create_connection(listening.getsockname()),
    ):
        arrivals.knock(listening)
    arrivals.end()
