"""The other processes of a graft: their control connections, what they say, and that they go."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from twinrun.errors import PeerError, TwinrunError
from twinrun.grafting.arrivals import Arrivals
from twinrun.grafting.direct import ANSWERS, QUESTIONS
from twinrun.grafting.link import Link, process_of
from twinrun.grafting.outlet import Buffer, Outlet
from twinrun.grafting.peer import Listener, Peer, check_greeting
from twinrun.grafting.pipes import accept, open_pipe, stream_of
from twinrun.grafting.point import OTHER, Rank
from twinrun.grafting.reach import attach
from twinrun.grafting.ring import Ring
from twinrun.grafting.settings import Settings
from twinrun.grafting.stream import Stream
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read

_SETTLE_S = 0.1
"""How long after a peer's death its last bytes may still be on their way."""


class Roster:
    """All peers of this process; a daemon thread serves their connections."""

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
        self.arrivals = Arrivals(settings, me, world, self)
        self._adopting = threading.Lock()
        self._goodbye: str | None = None
        announced = {"baseline": settings.baseline_ranks, "target": settings.target_ranks}
        self.announced = {role: count for role, count in announced.items() if count is not None}

    def start(self) -> None:
        """Begin to join; returns at once."""
        self.arrivals.start()

    def world(self, role: str) -> int | None:
        """How many ranks a job has, once it is known."""
        return self.worlds.get(role) or self.announced.get(role)

    def others(self, role: str) -> list[Peer]:
        """The peers of one job that have joined."""
        return [peer for rank, peer in list(self.peers.items()) if rank.role == role]

    @property
    def serves(self) -> bool:
        """Whether the meeting ends when this process does."""
        return self.arrivals.serves

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
                        peer,
                        self.me,
                        self.arrivals.record,
                        self.arrivals.token,
                        lends=self._crowded(),
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
        self.arrivals.wait()
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
        self.arrivals.end()
        for peer in peers:
            peer.close()
        self.arrivals.close()

    def abandon(self) -> None:
        """Close this process's copies of the descriptors; the connections stay the parent's."""
        self._closed = True
        for peer in self.peers.values():
            peer.link.socket.close()
        self.arrivals.close()

    def _crowded(self) -> bool:
        """Whether the ranks on this host have no core each."""
        here = 1 + sum(peer.local for peer in self.peers.values())
        return here > len(os.sched_getaffinity(0))

    # --- who has come, as arrivals report it ------------------------------------------------

    def alive(self) -> None:
        """Raise once the graft has ended."""
        self._listener.alive()

    def failed(self, error: TwinrunError) -> None:
        """The graft is over."""
        self._listener.failed(error)

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serve who connects to these, and all peers, on a thread from now on."""
        for listening in sockets:
            self._selector.register(listening, selectors.EVENT_READ, None)
        threading.Thread(target=self._serve, name="twinrun-graft", daemon=True).start()

    def missed(self, rank: Rank) -> None:
        """A rank came before this one, and has left since."""
        self.left_early.add(rank)
        self._listener.missed(rank)

    def connected(self, greeting: Header, link: Link) -> None:
        """A peer opens a stream of bytes; PeerError where it is not known."""
        peer = self.peers.get(stream_of(greeting))
        if peer is None:
            raise PeerError("a data connection came from nobody that is known")
        link.send({"t": "ok"})
        accept(peer, Stream(link.socket), self.settings, lambda: self.check(peer))

    def named(self, record: Header) -> Rank:
        """The rank behind a greeting; PeerError when the two cannot take part in one graft."""
        rank = check_greeting(record, self.settings, self.me, self.worlds, self.announced)
        if rank == self.me or rank in self.peers:
            raise PeerError(
                f"two processes claim to be {rank}",
                do=f"start one job as --graft-role {rank.role} and the other as {OTHER[rank.role]}, "
                "and only one program in each",
            )
        return rank

    def adopt(self, peer: Peer) -> None:
        """A peer has come; it is heard from now on."""
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
            self.arrivals.knock(ready)
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
