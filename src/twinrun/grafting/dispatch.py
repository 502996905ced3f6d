"""Sending what was given: at once to who asked, later to who has not yet, until nobody is left who may."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from twinrun.errors import PeerError
from twinrun.grafting.giving import Parcel, Shelf, Want
from twinrun.grafting.ledger import Ledger
from twinrun.grafting.message import Message
from twinrun.grafting.patience import Patience
from twinrun.grafting.peer import Peer
from twinrun.grafting.point import OTHER, Rank
from twinrun.grafting.roster import Roster
from twinrun.grafting.wire import json_text

_EVICT_S = 5.0
"""How long a full buffer is waited for before what somebody took already is dropped."""

LAST_STEP = 1 << 62
"""The step of a rank that will give and take nothing more."""

_LINGER_S = 60.0
"""How long the process that serves the meeting stays for ranks that have yet to come."""


class Desk(Protocol):
    """What sending needs of an exchange."""

    me: Rank
    ledger: Ledger
    roster: Roster
    lock: threading.RLock

    def alive(self) -> None: ...

    def limit_s(self) -> float: ...

    def stalled(self, what: str, do: str) -> PeerError: ...


class Dispatch:
    """The sending half of an exchange."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._roster = desk.roster
        self._other = OTHER[desk.me.role]
        self.shelf = Shelf(desk.roster.buffer, desk.ledger)

    def send(self, parcel: Parcel, want: Want) -> int:
        """Send to one who has asked; the bytes, 0 where it has gone."""
        peer = self._roster.peers[want.receiver]
        if peer.goodbye is not None or peer.gone_at:
            return 0
        outlet = peer.outlet or self._roster.outlet(peer)
        if peer.sending is not None:
            direct = peer.sending.message(*parcel.parts(want), peer.served, want.inside)
            if direct is not None:
                message, nbytes = direct
                outlet.send(message)
                return message.nbytes + nbytes
        message = parcel.message(want)
        outlet.send(message)
        return message.nbytes

    def keep(self, parcel: Parcel, served: Mapping[Rank, Want]) -> None:
        """Hold a copy for the ranks that have not said whether they want it."""
        self._reserve(parcel.nbytes)
        with self._desk.lock:
            # Orders that came while room was made are served from the shelf like later ones.
            self.shelf.keep(parcel, list(served))
            for want in self.shelf.orders(parcel).values():
                if want.receiver not in served:
                    self._send_kept(self._roster.peers[want.receiver], want)
            self.sweep()

    def serve(self, peer: Peer, want: Want, step: int) -> None:
        """Serve a new order from the shelf, and say that nothing older will come for it."""
        self._send_kept(peer, want)
        peer.served += 1
        if want.boxes != ():
            self._roster.outlet(peer).send_later(passing(step, peer))
        self.sweep()

    def _send_kept(self, peer: Peer, want: Want) -> None:
        for kept in self.shelf.order(want):
            self._roster.outlet(peer).send_later(kept.message(want))

    def sweep(self) -> None:
        """Drop what nobody will want any more."""
        world = self._roster.world(self._other)
        self.shelf.sweep(None if world is None else [Rank(self._other, r) for r in range(world)])

    def drain(self) -> None:
        """Wait until everything has been taken; PeerError where nobody comes for it."""
        desk = self._desk
        patience = Patience(desk.limit_s(), desk.alive)
        while self.shelf.kept or self._sending():
            if not patience.pause():
                raise desk.stalled("values are left that nobody took", "look at the other run")
        patience = Patience(min(_LINGER_S, desk.limit_s()), desk.alive)
        while self._roster.serves and self._awaited() and patience.pause():
            pass

    def _sending(self) -> bool:
        others = [p for p in self._roster.others(self._other) if not p.gone_at]
        if any(p.outlet is not None and not p.outlet.drained() for p in others):
            return True
        # Who has reached its end takes nothing more out of this process's GPU.
        return any(
            p.sending is not None
            and p.sending.busy()
            and self._desk.ledger.of(p.rank).step < LAST_STEP
            for p in others
        )

    def _awaited(self) -> bool:
        """Whether a rank has yet to come to the meeting that ends with this process."""
        return any(self._roster.world(r) is not None and self._roster.missing(r) for r in OTHER)

    def _reserve(self, nbytes: int) -> None:
        desk, buffer = self._desk, self._roster.buffer
        patience = Patience(desk.limit_s(), desk.alive)
        while not buffer.take(nbytes):
            if patience.waited_s > _EVICT_S and self._evict():
                continue
            if not patience.pause():
                raise desk.stalled(
                    f"the staging buffer ({buffer.limit_bytes >> 20} MiB) is full and nobody takes from it",
                    "raise --graft-buffer",
                )

    def _evict(self) -> bool:
        limit = self._roster.buffer.limit_bytes
        with self._desk.lock:
            return self.shelf.evict(
                f"it was dropped to make room: raise --graft-buffer above {limit}"
            )


def passing(step: int, peer: Peer) -> Message:
    """Nothing of an earlier step follows, as far as it was asked for by the orders served so far."""
    return Message(json_text({"s": step, "n": peer.served}))
