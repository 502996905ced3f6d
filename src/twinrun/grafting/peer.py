"""One other process of a graft, and whether it can take part in it at all."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from twinrun.errors import PeerError, TwinrunError
from twinrun.grafting.answering import Answering
from twinrun.grafting.endpoint import connect, rings
from twinrun.grafting.inlet import Inlet
from twinrun.grafting.link import Link
from twinrun.grafting.outlet import Outlet
from twinrun.grafting.point import ROLES, Rank
from twinrun.grafting.sending import Sending
from twinrun.grafting.settings import Settings, difference
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read


@dataclass
class Peer:
    """One other process: its control connection and the two pipes."""

    rank: Rank
    record: Header
    link: Link
    local: bool
    inlet: Inlet | None = None
    outlet: Outlet | None = None
    sending: Sending | None = None
    """GPU tensors to it; None where this process has no GPU"""
    receiving: Answering | None = None
    passed: int = -1
    """the step that its pipe to us has reached"""
    asked: int = 0
    """orders that we sent it"""
    answered: int = 0
    """of those, the ones it had served when its pipe reached ``passed``"""
    served: int = 0
    """orders of its own that we have served"""
    gone_at: float = 0.0
    goodbye: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lost(self) -> None:
        """It has gone: nothing may wait for it on the GPU."""
        for half in (self.sending, self.receiving):
            if half is not None:
                half.lost()

    def close(self) -> None:
        """Close every connection to it."""
        self.link.close()
        if self.receiving is not None:
            self.receiving.close()
        if self.outlet is not None:
            self.outlet.close()
        self.inlet = None  # with what it showed last of a device's memory

    @property
    def channel(self) -> str:
        """What the last tensor travelled over, and why not over something better."""
        direct = self.sending.over if self.sending is not None else ""
        return direct or self.bytes_over

    @property
    def bytes_over(self) -> str:
        """What host memory travels over, and why it is not a ring where it is none."""
        reason = rings(self.local)
        return "shared memory" if reason is None else f"tcp ({reason})"


class Listener(Protocol):
    """Who hears what the roster learns; called on its threads."""

    def joined(self, peer: Peer) -> None: ...

    def heard(self, peer: Peer, header: Header) -> None: ...

    def left(self, peer: Peer) -> None: ...

    def missed(self, rank: Rank) -> None: ...

    def failed(self, error: TwinrunError) -> None: ...

    def alive(self) -> None: ...


def check_greeting(
    record: Header,
    settings: Settings,
    me: Rank,
    worlds: dict[str, int],
    announced: Mapping[str, int],
) -> Rank:
    """The rank behind a greeting; PeerError with both sides' texts where the two do not fit.

    ``worlds`` learns how many ranks the other's job has.
    """
    role, number = read(record, "role", str), read(record, "rank", int)
    world = read(record, "world", int)
    rank = Rank(role, number)
    if role not in ROLES or not 0 <= number < world:
        raise PeerError(f"{rank} of {world} makes no sense")
    if worlds.setdefault(role, world) != world:
        raise PeerError(f"{rank} counts {world} ranks on its side, others count {worlds[role]}")
    if announced.get(role, world) != world:
        raise PeerError(
            f"the {role} has {world} ranks, but {announced[role]} were announced",
            do=f"give --graft-{role}-ranks {world}",
        )
    theirs = read(record, "settings", dict)
    differs = difference(settings.compared(), theirs, str(me), str(rank))
    if differs:
        raise PeerError(
            "the two sides were started with other settings", seen=differs, do="give both the same"
        )
    return rank


def refuse(record: Header, mine: Header, token: str, error: PeerError) -> None:
    """Tell one who came before why the two cannot take part in one graft."""
    with contextlib.suppress(PeerError, OSError):
        connected, _ = connect(record, mine, "an earlier visitor")
        link = Link(connected, "an earlier visitor")
        link.send({"t": "refuse", "why": str(error), "token": token})
        link.close()
