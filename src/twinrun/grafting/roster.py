"""The other processes of a graft: greeting them, their control connections, their coming and going."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from typing import Any

from twinrun import __version__
from twinrun.errors import PeerError, TwinrunError
from twinrun.grafting.direct import ANSWERS, QUESTIONS
from twinrun.grafting.endpoint import Endpoint, Unreachable, connect
from twinrun.grafting.link import (
    HungUp,
    Link,
    check_token,
    process_of,
    receive_one,
    same_user,
)
from twinrun.grafting.meeting import Meeting
from twinrun.grafting.outlet import Buffer, Outlet
from twinrun.grafting.peer import Listener, Peer, check_greeting, refuse
from twinrun.grafting.pipes import accept, open_pipe, stream_of
from twinrun.grafting.point import OTHER, Rank
from twinrun.grafting.reach import attach
from twinrun.grafting.ring import Ring
from twinrun.grafting.settings import Settings
from twinrun.grafting.stream import Stream
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read

_GREETING_S = 15.0
_JOIN_S = 12.0
_TRIES = 3
"""How many meetings may break while this process joins them."""
_SETTLE_S = 0.1
"""How long after a peer's death its last bytes may still be on their way."""


class Roster:
    """All peers of this process. Two daemon threads: one joins the meeting, one serves connections."""

    def __init__(self, settings: Settings, me: Rank, world: int, listener: Listener) -> None:
        self.settings = settings
        self.me = me
        self.worlds = {me.role: world}
        self.peers: dict[Rank, Peer] = {}
        self.left_early: set[Rank] = set()
        self.buffer = Buffer(settings.buffer_bytes)
        self.device_buffer = Buffer(settings.buffer_bytes)
        self._listener = listener
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._record: Header = {}
        self._token = ""
        self._endpoint: Endpoint | None = None
        self._meeting: Meeting | None = None
        self._adopting = threading.Lock()
        self._goodbye: str | None = None
        self._greeters: list[threading.Thread] = []
        self._joining = threading.Thread(
            target=self._join, name="twinrun-graft-meeting", daemon=True
        )
        announced = {"baseline": settings.baseline_ranks, "target": settings.target_ranks}
        self.announced = {role: count for role, count in announced.items() if count is not None}

    def start(self) -> None:
        """Begin to join; returns at once."""
        self._joining.start()

    def world(self, role: str) -> int | None:
        """How many ranks a job has, once it is known."""
        return self.worlds.get(role) or self.announced.get(role)

    def others(self, role: str) -> list[Peer]:
        """The peers of one job that have joined."""
        return [peer for rank, peer in list(self.peers.items()) if rank.role == role]

    @property
    def serves(self) -> bool:
        """Whether the meeting ends when this process does."""
        return self._meeting is not None and self._meeting.serves

    def missing(self, role: str) -> str:
        """Which ranks of a job have not come, in words; "" when all have."""
        world = self.world(role)
        if world is None:
            return f"no {role} rank has come to {self.settings.address}"
        came = {*self.peers, *self.left_early, self.me}
        absent = [r for r in range(world) if Rank(role, r) not in came]
        many = len(absent) != 1
        named = f"{role} rank{'s' if many else ''} {', '.join(map(str, absent))}"
        return f"{named} of {world} {'have' if many else 'has'} not come" if absent else ""

    def tell(self, peer: Peer, header: Header) -> None:
        """Send a control message; one that cannot be sent means that the peer is going."""
        if not peer.gone_at:
            with contextlib.suppress(PeerError):
                peer.link.send(header)

    def tell_all(self, header: Header) -> None:
        """Send a control message to every peer."""
        for peer in list(self.peers.values()):
            self.tell(peer, header)

    def outlet(self, peer: Peer) -> Outlet:
        """The pipe to a peer, opened on first use."""
        with peer.lock:
            if peer.outlet is None:
                peer.outlet = Outlet(
                    lambda: open_pipe(
                        peer, self.me, self._record, self._token, lends=self._crowded()
                    ),
                    self.buffer,
                    lambda: self.check(peer),
                    self.settings.timeout_s,
                )
            return peer.outlet

    def check(self, peer: Peer) -> None:
        """PeerError once ``peer`` has gone or the graft has ended."""
        self._listener.alive()
        if peer.gone_at and time.monotonic() - peer.gone_at > _SETTLE_S:
            raise PeerError(f"{peer.rank} {peer.goodbye or 'died'}")

    def close(self, goodbye: str) -> None:
        """Say goodbye and close every connection."""
        # Joining ends first, while strangers are still greeted: two ranks may be joining each other.
        # A thread that the interpreter's end catches inside the store's C++ would abort the process.
        if self._joining is not threading.current_thread():
            self._joining.join(_JOIN_S)
        for peer in list(self.peers.values()):
            if peer.sending is not None:
                peer.sending.close(gone=bool(peer.gone_at))
        for peer in list(self.peers.values()):
            if peer.receiving is not None:
                peer.receiving.leave()
        with self._adopting:  # whoever is adopted after this is told by whoever adopts it
            self._goodbye = goodbye
            peers = list(self.peers.values())
        for peer in peers:
            self.tell(peer, {"t": "bye", "why": goodbye})
        self._closed = True
        for greeter in self._greeters:
            greeter.join(_SETTLE_S * 10)
        for peer in peers:
            peer.close()
        if self._endpoint is not None:
            self._endpoint.close()

    def abandon(self) -> None:
        """Close this process's copies of the descriptors; the connections stay the parent's."""
        self._closed = True
        for peer in self.peers.values():
            peer.link.socket.close()
        if self._endpoint is not None:
            self._endpoint.close()

    def _crowded(self) -> bool:
        """Whether the ranks on this host have no core each."""
        here = 1 + sum(peer.local for peer in self.peers.values())
        return here > len(os.sched_getaffinity(0))

    # --- joining ---------------------------------------------------------------------------

    def _join(self) -> None:
        try:
            self._open_meeting()  # first, since strangers are asked for its token
            self._endpoint = Endpoint.open(self.settings.host, self.settings.port)
            self._record = {
                "t": "hello",
                "role": self.me.role,
                "rank": self.me.rank,
                "world": self.worlds[self.me.role],
                "settings": self.settings.compared(),
                "twinrun": __version__,
                **self._endpoint.record,
            }
            for listening in (self._endpoint.local, self._endpoint.remote):
                self._selector.register(listening, selectors.EVENT_READ, None)
            threading.Thread(target=self._serve, name="twinrun-graft", daemon=True).start()
            for record in self._meet():
                self._approach(record)
        except TwinrunError as error:
            self._listener.failed(error)
        except (OSError, RuntimeError, ValueError) as error:
            if not self._closed:
                self._listener.failed(
                    PeerError(f"the meeting at {self.settings.address} broke: {error}")
                )

    def _meet(self) -> list[Header]:
        """Who came to the meeting before this process."""
        for left in reversed(range(_TRIES)):
            meeting = self._open_meeting() if self._meeting is None else self._meeting
            try:
                return meeting.join(self._record)
            except (RuntimeError, OSError):
                if meeting.serves or not left:
                    raise
                self._meeting = None  # whoever served it has died: somebody else does now
        return []

    def _open_meeting(self) -> Meeting:
        self._meeting = meeting = Meeting.open(self.settings, self._listener.alive)
        self._token = meeting.token
        return meeting

    def _approach(self, record: Header) -> None:
        try:
            rank = self._check_record(record)
        except PeerError as error:
            refuse(record, self._record, self._token, error)
            raise
        try:
            connected, local = connect(record, self._record, str(rank))
            link = Link(connected, str(rank))
            link.send({**self._record, "token": self._token})
            answer = receive_one(link, _GREETING_S)
        except (Unreachable, HungUp):
            self.left_early.add(rank)
            self._listener.missed(rank)
            return
        if answer.get("t") == "refuse":
            raise PeerError(f"{rank} refuses: {read(answer, 'why', str)}")
        check_token(answer, self._token, str(rank))
        self._adopt(Peer(rank, answer, link, local))

    def _check_record(self, record: Header) -> Rank:
        """The rank behind a greeting; PeerError when the two cannot take part in one graft."""
        rank = check_greeting(record, self.settings, self.me, self.worlds, self.announced)
        if rank == self.me or rank in self.peers:
            raise PeerError(
                f"two processes claim to be {rank}",
                do=f"start one job as --graft-role {rank.role} and the other as {OTHER[rank.role]}, "
                "and only one program in each",
            )
        return rank

    def _adopt(self, peer: Peer) -> None:
        with self._adopting:
            if peer.rank in self.peers:
                raise PeerError(f"two processes claim to be {peer.rank}")
            peer.link.trusted = True
            attach(peer, self.settings, self.device_buffer, lambda: self.check(peer))
            self._listener.joined(peer)
            if self._goodbye is not None:
                self.tell(peer, {"t": "bye", "why": self._goodbye})
                return
        self._selector.register(peer.link.socket, selectors.EVENT_READ, peer)

    def _ended(self) -> bool:
        return self._closed

    def _serve(self) -> None:
        while not self._ended():
            try:
                for key, _ in self._selector.select(0.5):
                    self._ready(key.fileobj, key.data)
            except (OSError, ValueError, KeyError):
                if self._ended():
                    return
            except TwinrunError as error:
                self._listener.failed(error)

    def _ready(self, ready: Any, who: Any) -> None:
        if who is None:
            connected, _ = ready.accept()
            if ready.family == socket.AF_UNIX and not same_user(connected):
                connected.close()
                return
            greeter = threading.Thread(target=self._greet, args=(connected,), daemon=True)
            self._greeters = [*(t for t in self._greeters if t.is_alive()), greeter]
            greeter.start()
            return
        try:
            frames = who.link.receive()
            for frame in frames or ():
                self._dispatch(who, frame)
        except (TwinrunError, ValueError, TypeError, LookupError, OverflowError) as error:
            self._drop(who, f"sent something wrong ({getattr(error, 'summary', repr(error))})")
            return
        if frames is None:
            self._drop(who, "died")

    def _drop(self, peer: Peer, why: str) -> None:
        self._selector.unregister(peer.link.socket)
        peer.goodbye = peer.goodbye if peer.goodbye is not None else why
        peer.gone_at = time.monotonic()
        peer.lost()
        self._listener.left(peer)

    def _greet(self, connected: socket.socket) -> None:
        """Hear what a stranger wants; one that does not know the token learns nothing."""
        link = Link(connected, "a stranger")
        try:
            greeting = receive_one(link, _GREETING_S)
            check_token(greeting, self._token, "a stranger")
        except (TwinrunError, OSError):
            link.close()
            return
        try:
            if greeting.get("t") == "pipe":
                peer = self.peers.get(stream_of(greeting))
                if peer is None:
                    raise PeerError("a data connection came from nobody that is known")
                link.send({"t": "ok"})
                accept(peer, Stream(link.socket), self.settings, lambda: self.check(peer))
                return
            if greeting.get("t") == "refuse":
                raise PeerError(f"a later visitor refuses: {read(greeting, 'why', str)}")
            rank = self._check_record(greeting)
        except TwinrunError as error:
            with contextlib.suppress(PeerError):
                link.send({"t": "refuse", "why": str(error)})
            link.close()
            self._listener.failed(error)
            return
        link.who = str(rank)
        link.send({**self._record, "token": self._token})
        self._adopt(Peer(rank, greeting, link, connected.family == socket.AF_UNIX))

    def _dispatch(self, peer: Peer, header: Header) -> None:
        kind = header.get("t")
        if kind == "ring":
            ring = Ring.open(peer.link.take_fd(), process_of(peer.link.socket))
            accept(peer, ring, self.settings, lambda: self.check(peer))
        elif kind in ANSWERS and peer.sending is not None:
            peer.sending.heard(header)
        elif kind in QUESTIONS and peer.receiving is not None:
            peer.receiving.heard(header, peer.link.take_fd)
        elif kind == "bye":
            peer.goodbye = read(header, "why", str)
            self._listener.heard(peer, header)
        else:
            self._listener.heard(peer, header)
