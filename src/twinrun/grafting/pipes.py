"""The two pipes of a peer: opened by who writes, taken up by who reads."""

from __future__ import annotations

from collections.abc import Callable

from twinrun.errors import PeerError
from twinrun.grafting.endpoint import connect, rings
from twinrun.grafting.inlet import Inlet
from twinrun.grafting.link import Link, receive_one
from twinrun.grafting.outlet import Pipe
from twinrun.grafting.peer import Peer
from twinrun.grafting.point import Rank
from twinrun.grafting.ring import Ring
from twinrun.grafting.settings import Settings
from twinrun.grafting.stream import Stream
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read

_GREETING_S = 15.0


def open_pipe(peer: Peer, me: Rank, record: Header, token: str, *, lends: bool) -> Pipe:
    """A pipe to ``peer``: a ring on one host, else a connection of its own. PeerError.

    ``lends``: cores are scarce, and a ring lends long runs.
    """
    if rings(peer.local) is None:
        ring = Ring.create(lends=lends)
        peer.link.send({"t": "ring"}, ring.fd)
        return ring
    connected, _ = connect(peer.record, {**record, "host": ""}, str(peer.rank))
    link = Link(connected, str(peer.rank))
    link.send({"t": "pipe", "role": me.role, "rank": me.rank, "token": token})
    receive_one(link, _GREETING_S)
    return Stream(connected)


def stream_of(greeting: Header) -> Rank:
    """Who opens a data connection."""
    return Rank(read(greeting, "role", str), read(greeting, "rank", int))


def accept(peer: Peer, pipe: Pipe, settings: Settings, check: Callable[[], None]) -> None:
    """Read what ``peer`` sends from ``pipe``; PeerError for a second one."""
    if peer.inlet is not None or peer.receiving is None:
        pipe.close()
        raise PeerError(f"{peer.rank} opened a second pipe")
    peer.inlet = Inlet(pipe, str(peer.rank), check, settings.timeout_s, peer.receiving)
