"""Coming to a meeting: who came before is visited, who comes later is greeted."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Protocol

from twinrun import __version__
from twinrun.errors import PeerError, TwinrunError
from twinrun.grafting.endpoint import Endpoint, Unreachable, connect
from twinrun.grafting.link import HungUp, Link, check_token, receive_one, same_user
from twinrun.grafting.meeting import Meeting
from twinrun.grafting.peer import Peer, refuse
from twinrun.grafting.point import Rank
from twinrun.grafting.settings import Settings
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read

_GREETING_S = 15.0
_JOIN_S = 12.0
_LAST_WORDS_S = 1.0
_TRIES = 3
"""How many meetings may break while this process joins them."""


class Host(Protocol):
    """Who takes in the peers that have come. Called on other threads than the program's."""

    def alive(self) -> None:
        """Raise once the graft has ended."""
        ...

    def failed(self, error: TwinrunError) -> None:
        """The graft is over."""
        ...

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Call ``Arrivals.knock`` for whoever connects to one of these."""
        ...

    def named(self, record: Header) -> Rank:
        """The rank behind a greeting; PeerError when the two cannot take part in one graft."""
        ...

    def adopt(self, peer: Peer) -> None:
        """A peer has come."""
        ...

    def missed(self, rank: Rank) -> None:
        """One came before, and has left since."""
        ...

    def connected(self, greeting: Header, link: Link) -> None:
        """A known peer opens a stream of bytes; PeerError where it is not known."""
        ...


class Arrivals:
    """This process's own arrival, on a daemon thread, and a thread for everyone who knocks later."""

    def __init__(self, settings: Settings, me: Rank, world: int, host: Host) -> None:
        self._settings, self._me, self._world, self._host = settings, me, world, host
        self.record: Header = {}
        """what this process says of itself"""
        self.token = ""
        self._endpoint: Endpoint | None = None
        self._meeting: Meeting | None = None
        self._greeters: list[threading.Thread] = []
        self._ended = False
        self._joining = threading.Thread(
            target=self._join, name="twinrun-graft-meeting", daemon=True
        )

    def start(self) -> None:
        """Begin to join; returns at once."""
        self._joining.start()

    @property
    def serves(self) -> bool:
        """Whether the meeting ends when this process does."""
        return self._meeting is not None and self._meeting.serves

    def wait(self) -> None:
        """Until this process has met all who came before it, or for a while.

        Joining ends before anything is closed, while strangers are still greeted: two ranks may be joining each
        other. A thread that the interpreter's end catches inside the store's C++ would abort the process.
        """
        if self._joining is not threading.current_thread():
            self._joining.join(_JOIN_S)

    def end(self) -> None:
        """Greet nobody any more, and finish what was begun."""
        self._ended = True
        for greeter in self._greeters:
            greeter.join(_LAST_WORDS_S)

    def close(self) -> None:
        """Close what strangers connect to."""
        self._ended = True
        if self._endpoint is not None:
            self._endpoint.close()

    def knock(self, listening: socket.socket) -> None:
        """Somebody connects; over a Unix socket only the same user is heard."""
        connected, _ = listening.accept()
        if listening.family == socket.AF_UNIX and not same_user(connected):
            connected.close()
            return
        greeter = threading.Thread(target=self._greet, args=(connected,), daemon=True)
        greeter.start()  # before anybody may wait for its end
        self._greeters = [*(t for t in self._greeters if t.is_alive()), greeter]

    def _join(self) -> None:
        try:
            self._open_meeting()  # first, since strangers are asked for its token
            self._endpoint = Endpoint.open(self._settings.host, self._settings.port)
            self.record = {
                "t": "hello",
                "role": self._me.role,
                "rank": self._me.rank,
                "world": self._world,
                "settings": self._settings.compared(),
                "twinrun": __version__,
                **self._endpoint.record,
            }
            self._host.listen((self._endpoint.local, self._endpoint.remote))
            for record in self._meet():
                self._approach(record)
        except TwinrunError as error:
            self._host.failed(error)
        except (OSError, RuntimeError, ValueError) as error:
            if not self._ended:
                self._host.failed(
                    PeerError(f"the meeting at {self._settings.address} broke: {error}")
                )

    def _meet(self) -> list[Header]:
        """Who came to the meeting before this process."""
        for left in reversed(range(_TRIES)):
            meeting = self._open_meeting() if self._meeting is None else self._meeting
            try:
                return meeting.join(self.record)
            except (RuntimeError, OSError):
                if meeting.serves or not left:
                    raise
                self._meeting = None  # whoever served it has died: somebody else does now
        return []

    def _open_meeting(self) -> Meeting:
        self._meeting = meeting = Meeting.open(self._settings, self._host.alive)
        self.token = meeting.token
        return meeting

    def _approach(self, record: Header) -> None:
        try:
            rank = self._host.named(record)
        except PeerError as error:
            refuse(record, self.record, self.token, error)
            raise
        try:
            connected, local = connect(record, self.record, str(rank))
            link = Link(connected, str(rank))
            link.send({**self.record, "token": self.token})
            answer = receive_one(link, _GREETING_S)
        except (Unreachable, HungUp):
            self._host.missed(rank)
            return
        if answer.get("t") == "refuse":
            raise PeerError(f"{rank} refuses: {read(answer, 'why', str)}")
        check_token(answer, self.token, str(rank))
        self._host.adopt(Peer(rank, answer, link, local))

    def _greet(self, connected: socket.socket) -> None:
        """Hear what a stranger wants; one that does not know the token learns nothing."""
        link = Link(connected, "a stranger")
        try:
            greeting = receive_one(link, _GREETING_S)
            check_token(greeting, self.token, "a stranger")
        except (TwinrunError, OSError):
            link.close()
            return
        try:
            if greeting.get("t") == "pipe":
                self._host.connected(greeting, link)
                return
            if greeting.get("t") == "refuse":
                raise PeerError(f"a later visitor refuses: {read(greeting, 'why', str)}")
            rank = self._host.named(greeting)
        except TwinrunError as error:
            with contextlib.suppress(PeerError):
                link.send({"t": "refuse", "why": str(error)})
            link.close()
            self._host.failed(error)
            return
        link.who = str(rank)
        link.send({**self.record, "token": self.token})
        self._host.adopt(Peer(rank, greeting, link, connected.family == socket.AF_UNIX))
