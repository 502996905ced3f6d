"""One point being received: waiting for a plan, then for the boxes of every sender in it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from twinrun.errors import PeerError
from twinrun.grafting.frame import bring_together, common
from twinrun.grafting.ledger import Ledger
from twinrun.grafting.orders import Order, Orders
from twinrun.grafting.patience import Patience
from twinrun.grafting.peer import Peer
from twinrun.grafting.plan import Refusal, Wait
from twinrun.grafting.point import OTHER, Holding, Point, Rank
from twinrun.grafting.roster import Roster
from twinrun.grafting.taking import (
    Assembly,
    PointFailed,
    Stash,
    empty,
    read_whole,
    unequal_replicas,
)
from twinrun.grafting.tile import Tile
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read
from twinrun.recorder.dtypes import BY_NAME


@dataclass
class Taken:
    """What one receiver got at a point.

    ``tensor``: its own boxes, in memory that the caller owns, on the device that they came to; None
    when whole values were asked for. ``waited_s``: from the first look that found nothing on. ``whole``:
    (sender, tensor or None, plain value, extras) in sender-rank order.
    """

    tensor: torch.Tensor | None
    senders: tuple[int, ...]
    note: str
    waited_s: float
    whole: list[tuple[int, torch.Tensor | None, Any, Any]] = field(default_factory=list)
    nbytes: int = 0


class Desk(Protocol):
    """What receiving needs of an exchange."""

    me: Rank
    ledger: Ledger
    roster: Roster
    orders: Orders
    stash: Stash
    lock: threading.RLock

    def alive(self) -> None: ...

    def limit_s(self) -> float: ...

    def stalled(self, what: str, do: str) -> PeerError: ...


class Taking:
    """One ``take`` under way."""

    def __init__(self, exchange: Desk, point: Point, holding: Holding, whole: bool) -> None:
        self.x = exchange
        self.point = point
        self.holding = holding
        self.whole = whole
        self.place = list(point)
        self.order: Order | None = None
        self.got: set[int] = set()
        self.sole: torch.Tensor | None = None
        self.assembly: Assembly | None = None
        self.found: dict[int, tuple[torch.Tensor | None, Any, Any]] = {}
        self.nbytes = 0
        self.unequal: list[int] = []
        self.tiles: dict[int, Tile] = {}

    def run(self) -> Taken:
        try:
            return self._run()
        except PointFailed:
            for tile in self.tiles.values():
                tile.wait()
                tile.free()
            raise

    def _run(self) -> Taken:
        exchange = self.x
        exchange.stash.drop_before(self.point)
        patience: Patience | None = None
        while True:
            made = exchange.orders.current(
                self.point, self.holding, whole=self.whole, lock=exchange.lock
            )
            if isinstance(made, Refusal):
                raise PointFailed(f"{self.point}: {made.reason}", do=made.do or None)
            if isinstance(made, Order) and self._collect(self._same(made)):
                return self._finish(made, 0.0 if patience is None else patience.waited_s)
            if patience is None:
                patience = Patience(exchange.limit_s(), exchange.alive)
            if not patience.pause():
                if exchange.limit_s() > patience.waited_s:
                    patience = Patience(exchange.limit_s(), exchange.alive)
                    continue
                missing = f" (not known yet: {made.missing})" if isinstance(made, Wait) else ""
                raise exchange.stalled(
                    f"{self.point} was waited for {patience.waited_s:.0f} s{missing}",
                    "see whether the other run reaches that point at all, or raise --graft-timeout",
                )

    def _same(self, order: Order) -> Order:
        """``order``; PointFailed where boxes were taken for another one already."""
        if self.order is not order:
            if self.got:
                raise PointFailed(
                    f"{self.point}: a sender changed its layout at this point after others had sent theirs",
                    do="graft the point with a --transform, or leave it out",
                )
            self.order = order
        return order

    def _collect(self, order: Order) -> bool:
        """Take what has arrived; whether that was all."""
        for at, sender in enumerate(order.senders):
            if at in self.got:
                continue
            if self._fetch(order, at, sender):
                self.got.add(at)
            elif order.plan.ordered:
                return False  # sums are added up, and replicas checked, in the order of the pulls
        return len(self.got) == len(order.senders)

    def _fetch(self, order: Order, at: int, sender: Rank) -> bool:
        exchange = self.x
        peer = exchange.roster.peers[sender]
        aside = exchange.stash.take(sender, self.point)
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
                peer.passed = read(header, "s", int, inlet.who)
                peer.answered = read(header, "n", int, inlet.who)
                continue
            here = header.get("p") == self.place
            if here and header.get("h") == order.numbers[sender.rank]:
                self._accept(order, at, header, inlet)
                return True
            exchange.stash.put(sender, Point.read(header.get("p"), inlet.who), header, inlet)
            if here:
                return False

    def _past(self, peer: Peer) -> bool:
        """Whether everything that ``peer`` will ever send for this point lies behind us."""
        asked = self.x.orders.asked.get((self.point.name, peer.rank.rank), 0)
        return peer.passed > self.point.step and peer.answered >= asked

    def _accept(self, order: Order, at: int, header: Header, payload: Any) -> None:
        sender = order.plan.pulls[at].sender
        if "late" in header:
            who = str(order.senders[at])
            why = read(header, "late", str, who)
            raise PointFailed(f"{self.point}: {who} sent it too long ago: {why}")
        if header.get("h") != order.numbers[sender] or header.get("k") != order.orders[sender]:
            payload.discard()
            raise PointFailed(
                f"{self.point}: {order.senders[at]} changed its layout at this point while others did not",
                do="graft the point with a --transform, or leave it out",
            )
        self.nbytes += payload.left
        if self.whole:
            self.found[sender] = read_whole(header, payload, str(order.senders[at]))
            return
        dtype = BY_NAME[order.dtypes[sender]]
        if order.sole:
            self.sole = self._sole(payload, dtype)
            return
        tile = payload.hold() if order.tiling is not None else None
        if tile is None:
            self._assemble(order, at, payload)
        elif tile.share.tiling is order.tiling:
            self.tiles[at] = tile
        else:
            raise PeerError(
                f"{order.senders[at]} put what was ordered into the place of something else"
            )

    def _assemble(self, order: Order, at: int, payload: Any) -> None:
        """Read one sender's boxes into their places."""
        pull = order.plan.pulls[at]
        if self.assembly is None:
            self.assembly = Assembly(
                order.plan, self.holding.shape, BY_NAME[self.holding.dtype], payload.device
            )
        if not self.assembly.put(pull.parts, payload, BY_NAME[order.dtypes[pull.sender]]):
            self.unequal.append(pull.sender)

    def _tiled(self, order: Order) -> torch.Tensor | None:
        """The value where it lies, if all its boxes are in one place; else they are copied together."""
        tiles = list(self.tiles.values())
        frame = common(tiles) if len(tiles) == len(order.senders) else None
        for tile in tiles:
            tile.wait()
        if frame is not None:
            self.tiles.clear()
            return frame.give()
        for at, tile in self.tiles.items():
            self._assemble(order, at, tile)
        self.tiles.clear()
        bring_together(tiles)
        return None

    def _sole(self, payload: Any, dtype: torch.dtype) -> torch.Tensor:
        """The one box of a value, in the receiver's dtype."""
        shape, wanted = self.holding.shape, BY_NAME[self.holding.dtype]
        given: torch.Tensor | None = payload.gift(shape, dtype) if wanted == dtype else None
        if given is not None:
            return given
        made = empty(shape, wanted, payload.device)
        payload.read_tensor(made, dtype)
        return made

    def _finish(self, order: Order, waited_s: float) -> Taken:
        tensor = self._tiled(order) if self.tiles else self.sole
        if self.unequal:
            raise unequal_replicas(self.point, self.unequal, OTHER[self.x.me.role])
        if tensor is None and not self.whole:
            assembly = self.assembly or Assembly(
                order.plan, self.holding.shape, BY_NAME[self.holding.dtype]
            )
            tensor = assembly.finish()
        whole = [(rank, *self.found[rank]) for rank in sorted(self.found)] if self.found else []
        return Taken(tensor, tuple(order.numbers), order.note, waited_s, whole, self.nbytes)
