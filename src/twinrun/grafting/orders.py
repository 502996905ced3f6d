"""The standing orders of a receiver: one plan for each name, kept until somebody's layout changes."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from twinrun.grafting.frame import Tiling
from twinrun.grafting.inside import Inside
from twinrun.grafting.ledger import Announcement, Ledger
from twinrun.grafting.peer import Peer
from twinrun.grafting.plan import Plan, Pull, Refusal, Side, Wait
from twinrun.grafting.planning import make_plan, whole_values
from twinrun.grafting.point import OTHER, Holding, Point, Rank
from twinrun.grafting.roster import Roster
from twinrun.grafting.taking import castable
from twinrun.recorder.dtypes import BY_NAME


@dataclass(frozen=True, slots=True)
class Order:
    """A plan in force. Sender rank -> the announcement it was made for, the order's number, its dtype."""

    plan: Plan
    mine: Holding
    whole: bool
    numbers: dict[int, int]
    orders: dict[int, int]
    dtypes: dict[int, str]
    note: str
    senders: tuple[Rank, ...]
    """who sends, in the order of the plan's pulls"""
    sole: bool
    """whether one box of one sender is all of it"""
    tiling: Tiling | None = None
    """boxes of several senders that can be put in their places by the senders"""


class Orders:
    """Makes plans and tells senders; used under the exchange's lock."""

    def __init__(self, me: Rank, roster: Roster, ledger: Ledger) -> None:
        self._me = me
        self._roster = roster
        self._ledger = ledger
        self._active: dict[str, Order] = {}
        self._refused: dict[str, tuple[int, Holding, Refusal]] = {}
        self._made: dict[tuple[Any, ...], Order] = {}
        self._tilings: dict[tuple[Any, ...], Tiling] = {}
        self._next = 0
        self.asked: dict[tuple[str, int], int] = {}
        """(name, sender) -> which of the orders sent to it was the last for that name"""

    def current(
        self, point: Point, mine: Holding, *, whole: bool, lock: threading.RLock
    ) -> Order | Wait | Refusal:
        """The order in force for ``point``, made and sent out when there is none that fits."""
        order = self._active.get(point.name)
        if order is not None and order.mine is mine and self._fits(order, point, whole):
            return order
        with lock:
            refused = self._refused.get(point.name)
            if refused is not None and refused[:2] == (self._ledger.version, mine):
                return refused[2]
            return self._make(point, mine, whole)

    def answer(self, peer: Peer, name: str, number: int, since: tuple[int, int]) -> None:
        """``peer`` announced a name: tell it at once if its values are not needed."""
        order = self._active.get(name)
        if (
            order is not None
            and peer.rank.role != self._me.role
            and peer.rank.rank not in order.numbers
        ):
            self._tell(peer, name, since, number, 0, ())

    def _fits(self, order: Order, point: Point, whole: bool) -> bool:
        if order.whole is not whole:
            return False
        for sender in order.senders:
            held = self._ledger.held(sender, point)
            if held is None or held.number != order.numbers[sender.rank]:
                return False
        return True

    def _make(self, point: Point, mine: Holding, whole: bool) -> Order | Wait | Refusal:
        senders, announced = self._side(OTHER[self._me.role], point)
        if senders is None:
            return Wait(self._roster.missing(OTHER[self._me.role]))
        receivers, _ = self._side(self._me.role, point)
        if receivers is None:
            return Wait(self._roster.missing(self._me.role))
        plan = whole_values(senders) if whole else make_plan(self._me.rank, senders, receivers)
        if isinstance(plan, Plan) and not whole:
            plan = _checked(plan, senders, mine)
        if isinstance(plan, Wait):
            return plan
        if isinstance(plan, Refusal):
            self._refused[point.name] = (self._ledger.version, mine, plan)
            self._active.pop(point.name, None)
            self._decline(point, announced, set())
            return plan
        order = self._order(plan, mine, whole, announced, senders)
        self._active[point.name] = order
        for pull in plan.pulls:
            self._ask(point, order, pull)
        self._decline(point, announced, set(order.numbers))
        return order

    def _order(
        self,
        plan: Plan,
        mine: Holding,
        whole: bool,
        announced: dict[int, Announcement],
        senders: Side,
    ) -> Order:
        numbers = {pull.sender: announced[pull.sender].number for pull in plan.pulls}
        key = (mine, whole, tuple(sorted(numbers.items())), plan)
        if key not in self._made:
            first = self._next
            self._next += len(plan.pulls)
            dtypes = {senders.held[pull.sender].dtype for pull in plan.pulls}
            tiled = plan.tiles and dtypes == {mine.dtype} and not whole
            self._made[key] = Order(
                plan,
                mine,
                whole,
                numbers,
                {pull.sender: first + at for at, pull in enumerate(plan.pulls)},
                {pull.sender: senders.held[pull.sender].dtype for pull in plan.pulls},
                _note(plan, senders, mine),
                tuple(Rank(OTHER[self._me.role], pull.sender) for pull in plan.pulls),
                not whole and plan.is_all_of(mine.shape),
                self._tiling(plan, mine) if tiled else None,
            )
        return self._made[key]

    def _tiling(self, plan: Plan, mine: Holding) -> Tiling:
        """What stands for all values that are put together in this way."""
        key = plan.pulls, mine.shape, mine.dtype
        if key not in self._tilings:
            number = len(self._tilings)
            self._tilings[key] = Tiling(number, mine.shape, BY_NAME[mine.dtype])
        return self._tilings[key]

    def _ask(self, point: Point, order: Order, pull: Pull) -> None:
        """Tell one sender what to send; where its boxes go, too, if they can be put there at once."""
        peer = self._roster.peers[Rank(OTHER[self._me.role], pull.sender)]
        number, boxes, inside = order.orders[pull.sender], None, None
        if not order.whole:
            boxes = [[list(p.source.starts), list(p.source.stops)] for p in pull.parts]
        if order.tiling is not None and peer.receiving is not None:
            wanted = [part.wanted for part in pull.parts]
            peer.receiving.expect(order.tiling.share(wanted))
            inside = Inside.said(order.tiling.number, order.tiling.shape, wanted)
        self._tell(peer, point.name, point.at, order.numbers[pull.sender], number, boxes, inside)

    def _side(self, role: str, point: Point) -> tuple[Side | None, dict[int, Announcement]]:
        world = self._roster.world(role)
        if world is None:
            return None, {}
        announced = {}
        absent = set()
        for number in range(world):
            rank = Rank(role, number)
            made = self._ledger.held(rank, point)
            if made is not None and (rank in self._roster.peers or rank == self._me):
                announced[number] = made
            elif self._ledger.absent(rank, point):
                absent.add(number)
        held = {rank: made.holding for rank, made in announced.items()}
        return Side(role, world, held, frozenset(absent)), announced

    def _decline(self, point: Point, announced: dict[int, Announcement], but: set[int]) -> None:
        for rank, made in announced.items():
            if rank not in but:
                peer = self._roster.peers[Rank(OTHER[self._me.role], rank)]
                self._tell(peer, point.name, point.at, made.number, 0, ())

    def _tell(
        self, peer: Peer, name: str, since: tuple[int, int], saw: int, number: int, boxes: Any,
        inside: Any = None,
    ) -> None:  # fmt: skip
        order = {
            "t": "want",
            "name": name,
            "since": list(since),
            "saw": saw,
            "k": number,
            "boxes": boxes,
        }
        if inside is not None:
            order["inside"] = inside
        peer.asked += 1
        self.asked[name, peer.rank.rank] = peer.asked
        self._roster.tell(peer, order)


def _checked(plan: Plan, senders: Side, mine: Holding) -> Plan | Refusal:
    for pull in plan.pulls:
        theirs = senders.held[pull.sender]
        if theirs.kind == "value" or mine.kind == "value":
            return Refusal(
                f"{senders.role} rank {pull.sender} sends {theirs.dtype}, here is {mine.dtype}",
                "a value that is no tensor needs a --transform",
            )
        if not castable(BY_NAME[theirs.dtype], BY_NAME[mine.dtype]):
            return Refusal(
                f"{theirs.dtype} from {senders.role} rank {pull.sender} cannot stand in for {mine.dtype}",
                "use a --transform that says what the value should become",
            )
    return plan


def _note(plan: Plan, senders: Side, mine: Holding) -> str:
    dtypes = {senders.held[pull.sender].dtype for pull in plan.pulls} - {mine.dtype, "value"}
    cast = f", cast from {', '.join(sorted(dtypes))} to {mine.dtype}" if dtypes else ""
    return plan.note + cast
