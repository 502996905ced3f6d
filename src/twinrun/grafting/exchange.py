"""Giving and taking points between the two jobs, matched by point, whatever the order of calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from twinrun.errors import PeerError, TwinrunError
from twinrun.grafting.giving import Parcel, Shelf, Want
from twinrun.grafting.ledger import Announcement, Ledger
from twinrun.grafting.message import Message
from twinrun.grafting.orders import Order, Orders
from twinrun.grafting.patience import Patience
from twinrun.grafting.plan import Plan, Refusal, Wait
from twinrun.grafting.point import OTHER, Holding, Point, Rank
from twinrun.grafting.roster import Peer, Roster
from twinrun.grafting.settings import Settings
from twinrun.grafting.taking import Assembly, Stash, castable, read_whole
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read
from twinrun.recorder.dtypes import BY_NAME

_EVICT_S = 5.0
_ASK_S = 1.0
_END = 1 << 62


class PointFailed(TwinrunError):
    """One point cannot be grafted; the program's own tensor is used and the graft goes on."""


@dataclass
class Taken:
    """What one receiver got at a point.

    ``tensor``: its own boxes, host memory that the caller owns; None when whole values were asked
    for. ``whole``: (sender, tensor or None, plain value, extras) in sender-rank order.
    """

    tensor: torch.Tensor | None
    senders: tuple[int, ...]
    note: str
    waited_s: float
    whole: list[tuple[int, torch.Tensor | None, Any, Any]] = field(default_factory=list)
    nbytes: int = 0


class Exchange:
    """One process's part in a graft. ``give`` and ``take`` may be called from any thread, one at a time.

    Raises PointFailed where one point cannot be had, PeerError where the graft is over.
    """

    def __init__(
        self,
        settings: Settings,
        me: Rank,
        world: int,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.settings = settings
        self.me = me
        self.ledger = Ledger()
        self.roster = Roster(settings, me, world, self)
        self.failure: TwinrunError | None = None
        self._say = say
        self._lock = threading.RLock()
        self._turn = threading.RLock()
        self._closed = False
        self._shelf = Shelf(self.roster.buffer, self.ledger)
        self._stash = Stash(settings.buffer_bytes)
        self._orders = Orders(me, self.roster, self.ledger)
        self._numbers: dict[Holding, int] = {}
        self._current: dict[str, int] = {}
        self._step = -1
        self.last = ""
        self.roster.start()

    # --- what the program calls ------------------------------------------------------------

    def give(self, point: Point, holding: Holding, parcel_of: Callable[[int], Parcel]) -> int:
        """Send what ``parcel_of(announcement)`` makes to whoever wants it; bytes sent or staged."""
        with self._turn:
            self.alive()
            self.advance(point)
            with self._lock:
                parcel = parcel_of(self._announce(point, holding))
                orders = self._shelf.orders(parcel)
            if len(orders) < (self.roster.world(OTHER[self.me.role]) or _END):
                self._keep(parcel, orders)
            return sum(self._send(parcel, want) for want in orders.values() if want.boxes != ())

    def take(self, point: Point, holding: Holding, *, whole: bool = False) -> Taken:
        """Wait for the other run's value of ``point``, as boxes in ``holding``'s layout or whole."""
        with self._turn:
            self.alive()
            self.advance(point)
            with self._lock:
                self._announce(point, holding)
            return _Taking(self, point, holding, whole).run()

    def advance(self, point: Point) -> None:
        """Note where this rank is; a new step is told to everybody."""
        self.last = str(point)
        if point.step > self._step:
            self._pass(point.step)

    def close(self, why: str = "finished", *, drain: bool = True) -> None:
        """Wait until what is still wanted has been taken, then leave; idempotent."""
        with self._turn:
            if self._closed:
                return
            try:
                if drain and self.failure is None and (self.roster.peers or self._shelf.kept):
                    self._pass(_END)
                    self._drain()
            except TwinrunError as error:
                self.failed(error)
            self._closed = True
            reason = why if self.failure is None else f"stopped: {self.failure.summary}"
            self.roster.close(reason)

    def alive(self) -> None:
        """Raise what ended the graft, once something has."""
        if self.failure is not None:
            raise self.failure
        if self._closed:
            raise PeerError("this graft is closed")

    # --- what the roster reports, on its threads -------------------------------------------

    def failed(self, error: TwinrunError) -> None:
        """The graft is over for this process."""
        with self._lock:
            first = self.failure is None and not self._closed
            if first:
                self.failure = error
        if first:
            self._say(f"graft ended: {error}")
            self.roster.tell_all({"t": "bye", "why": f"stopped: {error.summary}"})

    def joined(self, peer: Peer) -> None:
        """A peer has come: it hears everything that was announced before."""
        with self._lock:
            # Under the lock that every announcement takes, so that none is heard before its past.
            self.roster.peers[peer.rank] = peer
            for history in self.ledger.of(self.me).announced.values():
                for held in history:
                    self.roster.tell(peer, _announcement(held.since, held.number, held.holding))
            if self._step >= 0:
                self.roster.tell(peer, {"t": "step", "step": self._step, "last": self.last})

    def heard(self, peer: Peer, header: Header) -> None:
        """A control message."""
        who, kind = str(peer.rank), header.get("t")
        with self._lock:
            if kind == "hold":
                at = read(header, "since", list, who)
                holding = Holding.read(read(header, "what", dict, who), who)
                number = read(header, "h", int, who)
                self.ledger.announce(
                    peer.rank, Announcement((int(at[0]), int(at[1])), number, holding)
                )
                self._orders.answer(peer, holding.name, number, (int(at[0]), int(at[1])))
            elif kind == "want":
                want = Want.read(peer.rank, header)
                self._serve_kept(peer, want)
                self._sweep()
            elif kind == "step":
                self.ledger.advance(
                    peer.rank, read(header, "step", int, who), read(header, "last", str, who)
                )
                self._sweep()
            elif kind == "where":
                self.roster.tell(peer, {"t": "step", "step": self._step, "last": self.last})
            elif kind == "bye":
                self._bye(peer, read(header, "why", str, who))
            elif kind == "late":
                self.ledger.of(peer.rank).failed[read(header, "name", str, who)] = read(
                    header, "why", str, who
                )
                self.ledger.version += 1
            else:
                raise PeerError(f"{who} sent an unknown message {str(kind)[:40]!r}")

    def missed(self, rank: Rank) -> None:
        """A rank came to the meeting before this one, and has left since."""
        with self._lock:
            self.ledger.end(rank, "had left before this rank came")

    def left(self, peer: Peer) -> None:
        """A peer's connection has closed."""
        with self._lock:
            if peer.goodbye == "finished":
                self.ledger.end(peer.rank, "has finished")
                self._sweep()
                return
            why = peer.goodbye or "died"
            self.ledger.end(peer.rank, why)
        if peer.rank.role != self.me.role and not why.startswith("stopped"):
            self.failed(
                PeerError(
                    f"{peer.rank} {why}",
                    seen=f"its last point: {self.ledger.of(peer.rank).last or 'none'}; here: {self.last or 'none'}",
                    do="look at its own log; this run goes on ungrafted unless --strict was given",
                )
            )

    def _bye(self, peer: Peer, why: str) -> None:
        self.ledger.end(peer.rank, "has finished" if why == "finished" else why)
        self._sweep()
        if why != "finished" and peer.rank.role != self.me.role:
            self.failed(PeerError(f"{peer.rank} left the graft: {why}"))

    # --- sending ---------------------------------------------------------------------------

    def _announce(self, point: Point, holding: Holding) -> int:
        number = self._numbers.setdefault(holding, len(self._numbers))
        if self._current.get(point.name) != number:
            self._current[point.name] = number
            self.ledger.announce(self.me, Announcement(point.at, number, holding))
            self.roster.tell_all(_announcement(point.at, number, holding))
        return number

    def _send(self, parcel: Parcel, want: Want) -> int:
        peer = self.roster.peers[want.receiver]
        if peer.goodbye is not None or peer.gone_at:
            return 0
        message = parcel.message(want)
        self.roster.outlet(peer).send(message)
        return message.nbytes

    def _keep(self, parcel: Parcel, orders: dict[Rank, Want]) -> None:
        self._reserve(parcel.nbytes)
        with self._lock:
            # Orders that came while room was made are served from the shelf like later ones.
            self._shelf.keep(parcel, list(orders))
            for want in self._shelf.orders(parcel).values():
                if want.receiver not in orders:
                    outlet = self.roster.outlet(self.roster.peers[want.receiver])
                    for late in self._shelf.order(want):
                        outlet.send_later(late.message(want))
            self._sweep()

    def _serve_kept(self, peer: Peer, want: Want) -> None:
        """Serve a new order from the shelf, and say that nothing older will come for it."""
        outlet = self.roster.outlet(peer)
        for parcel in self._shelf.order(want):
            outlet.send_later(parcel.message(want))
        peer.served += 1
        if want.boxes != ():
            outlet.send_later(Message({"s": self._step, "n": peer.served}))

    def _reserve(self, nbytes: int) -> None:
        patience = Patience(self._limit_s(), self.alive)
        buffer = self.roster.buffer
        while not buffer.take(nbytes):
            if patience.waited_s > _EVICT_S and self._evict():
                continue
            if not patience.pause():
                raise self._stalled(
                    f"the staging buffer ({buffer.limit_bytes >> 20} MiB) is full and nobody takes from it",
                    "raise --graft-buffer",
                )

    def _evict(self) -> bool:
        with self._lock:
            point = self._shelf.evict()
        if point is None:
            return False
        why = f"{point} was dropped to make room: raise --graft-buffer above {self.roster.buffer.limit_bytes}"
        self.roster.tell_all({"t": "late", "name": point.name, "why": why})
        return True

    def _sweep(self) -> None:
        world = self.roster.world(OTHER[self.me.role])
        self._shelf.sweep(
            None if world is None else [Rank(OTHER[self.me.role], r) for r in range(world)]
        )

    def _pass(self, step: int) -> None:
        self._step = step
        with self._lock:
            self.ledger.advance(self.me, step, self.last)
            self.roster.tell_all({"t": "step", "step": step, "last": self.last})
        for peer in self.roster.others(OTHER[self.me.role]):
            if peer.outlet is not None and peer.goodbye is None and not peer.gone_at:
                peer.outlet.send(Message({"s": step, "n": peer.served}))

    def _drain(self) -> None:
        patience = Patience(self._limit_s(), self.alive)
        while self._shelf.kept or self._sending() or (self.roster.serves and self._awaited()):
            if not patience.pause():
                raise self._stalled("values are left that nobody took", "look at the other run")

    def _sending(self) -> bool:
        others = self.roster.others(OTHER[self.me.role])
        return any(p.outlet is not None and not p.outlet.drained() for p in others if not p.gone_at)

    def _awaited(self) -> bool:
        """Whether a rank has yet to come to the meeting that ends with this process."""
        return any(self.roster.world(r) is not None and self.roster.missing(r) for r in OTHER)

    # --- waiting ---------------------------------------------------------------------------

    def _limit_s(self) -> float:
        met = self.roster.world(OTHER[self.me.role]) is not None and not self.roster.missing(
            OTHER[self.me.role]
        )
        return self.settings.timeout_s if met else self.settings.meeting_timeout_s

    def _stalled(self, what: str, do: str) -> PeerError:
        other = OTHER[self.me.role]
        missing = self.roster.missing(other)
        if missing:
            return PeerError(f"{what}: {missing}", do="start it, or look why it has not come")
        self.roster.tell_all({"t": "where"})
        time.sleep(_ASK_S)
        lasts = "; ".join(
            f"{p.rank}: {self.ledger.of(p.rank).last or 'none'}" for p in self.roster.others(other)
        )
        return PeerError(what, seen=f"last points: here: {self.last or 'none'}; {lasts}", do=do)


class _Taking:
    """One ``take`` under way."""

    def __init__(self, exchange: Exchange, point: Point, holding: Holding, whole: bool) -> None:
        self.x = exchange
        self.point = point
        self.holding = holding
        self.whole = whole
        self.got: dict[int, Any] = {}
        self.assembly: Assembly | None = None
        self.found: dict[int, tuple[torch.Tensor | None, Any, Any]] = {}
        self.nbytes = 0

    def run(self) -> Taken:
        exchange = self.x
        exchange._stash.drop_before(self.point)
        patience = Patience(exchange._limit_s(), self._check)
        while True:
            made = exchange._orders.current(
                self.point, self.holding, whole=self.whole, lock=exchange._lock
            )
            if isinstance(made, Refusal):
                raise PointFailed(f"{self.point}: {made.reason}", do=made.do or None)
            if isinstance(made, Order) and self._collect(made):
                return self._finish(made, patience.waited_s)
            if not patience.pause():
                if exchange._limit_s() > patience.waited_s:
                    patience = Patience(exchange._limit_s(), self._check)
                    continue
                missing = f" (not known yet: {made.missing})" if isinstance(made, Wait) else ""
                raise exchange._stalled(
                    f"{self.point} was waited for {patience.waited_s:.0f} s{missing}",
                    "see whether the other run reaches that point at all, or raise --graft-timeout",
                )

    def _check(self) -> None:
        self.x.alive()
        for rank, progress in self.x.ledger.ranks.items():
            why = progress.failed.pop(self.point.name, None)
            if why is not None:
                raise PointFailed(f"{self.point}: {rank} sent it too long ago: {why}")

    def _collect(self, order: Order) -> bool:
        """Take what has arrived; whether that was all."""
        for at, pull in enumerate(order.plan.pulls):
            if pull.sender in self.got:
                continue
            if self._fetch(order, at):
                self.got[pull.sender] = pull.parts
            elif order.plan.sums:
                return False  # sums are added up in the order of the pulls
        return len(self.got) == len(order.plan.pulls)

    def _fetch(self, order: Order, at: int) -> bool:
        exchange, pull = self.x, order.plan.pulls[at]
        sender = Rank(OTHER[exchange.me.role], pull.sender)
        peer = exchange.roster.peers[sender]
        aside = exchange._stash.take(sender, self.point)
        if aside is not None:
            self._accept(order, at, aside.header, aside)
            return True
        inlet = peer.inlet
        if inlet is None:
            return False
        while True:
            ended = peer.goodbye == "finished" and peer.gone_at
            header = inlet.poll()
            if header is None:
                if self._past(peer) or ended:
                    raise PointFailed(
                        f"{self.point}: {sender} went past it without holding it",
                        seen=f"its last point: {exchange.ledger.of(sender).last or 'none'}",
                        do="the two programs take different paths there; leave the point out of the filter",
                    )
                return False
            if "s" in header:
                peer.passed = read(header, "s", int, str(sender))
                peer.answered = read(header, "n", int, str(sender))
                continue
            point = Point.read(header.get("p"), str(sender))
            if point == self.point and header.get("h") == order.numbers.get(pull.sender):
                self._accept(order, at, header, inlet)
                return True
            exchange._stash.put(sender, point, header, inlet)
            if point == self.point:
                return False

    def _past(self, peer: Peer) -> bool:
        """Whether everything that ``peer`` will ever send for this point lies behind us."""
        asked = self.x._orders.asked.get((self.point.name, peer.rank.rank), 0)
        return peer.passed > self.point.step and peer.answered >= asked

    def _accept(self, order: Order, at: int, header: Header, payload: Any) -> None:
        pull = order.plan.pulls[at]
        sender = f"{OTHER[self.x.me.role]} rank {pull.sender}"
        if (
            header.get("h") != order.numbers.get(pull.sender)
            or header.get("k") != order.orders[pull.sender]
        ):
            raise PointFailed(
                f"{self.point}: {sender} changed its layout at this point while others did not",
                do="graft the point with a --transform, or leave it out",
            )
        self.nbytes += payload.left
        if self.whole:
            self.found[pull.sender] = read_whole(header, payload, sender)
            return
        dtype = self._dtype(order, pull.sender)
        if self.assembly is None:
            self.assembly = Assembly(order.plan, self.holding.shape, BY_NAME[self.holding.dtype])
        self.assembly.put(pull.parts, payload, dtype)

    def _dtype(self, order: Order, sender: int) -> torch.dtype:
        return BY_NAME[order.dtypes[sender]]

    def _finish(self, order: Order, waited_s: float) -> Taken:
        tensor = None
        if not self.whole:
            assembly = self.assembly or Assembly(
                order.plan, self.holding.shape, BY_NAME[self.holding.dtype]
            )
            tensor = assembly.finish()
        senders = tuple(pull.sender for pull in order.plan.pulls)
        whole = [(rank, *self.found[rank]) for rank in sorted(self.found)]
        return Taken(tensor, senders, order.note, waited_s, whole, self.nbytes)


def _announcement(since: tuple[int, int], number: int, holding: Holding) -> Header:
    return {"t": "hold", "since": list(since), "h": number, "what": holding.as_json()}


__all__ = ["Exchange", "Plan", "PointFailed", "Taken", "castable"]
