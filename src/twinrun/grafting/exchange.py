"""Giving and taking points between the two jobs, matched by point, whatever the order of calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from twinrun.errors import PeerError, TwinrunError
from twinrun.grafting.dispatch import LAST_STEP, Dispatch, passing
from twinrun.grafting.giving import Given, Parcel, Want
from twinrun.grafting.ledger import Announcement, Ledger
from twinrun.grafting.orders import Orders
from twinrun.grafting.outcomes import Outcomes
from twinrun.grafting.peer import Peer
from twinrun.grafting.point import OTHER, Holding, Point, Rank
from twinrun.grafting.receiving import Taken, Taking
from twinrun.grafting.roster import Roster
from twinrun.grafting.settings import Settings, ended_mark
from twinrun.grafting.taking import Stash
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read

_ASK_S = 1.0
_LOOK_S = 0.5


class Exchange:
    """One process's part in a graft. ``give`` and ``take`` may be called from any thread, one at a time.

    Raises PointFailed where one point cannot be had, PeerError where the graft is over.
    """

    def __init__(
        self,
        settings: Settings,
        me: Rank,
        world: int,
        mixed: Callable[[Point, str], None] = lambda point, text: None,
    ) -> None:
        self.settings = settings
        self.me = me
        self.ledger = Ledger()
        self.roster = Roster(settings, me, world, self)
        self.failure: TwinrunError | None = None
        self._mixed = mixed
        self._outcomes = Outcomes()
        self.lock = threading.RLock()
        self._turn = threading.RLock()
        self._closed = False
        self._met = False
        self.dispatch = Dispatch(self)
        self.stash = Stash(settings.buffer_bytes)
        self.orders = Orders(me, self.roster, self.ledger)
        self._numbers: dict[Holding, int] = {}
        self._current: dict[str, tuple[Holding, int]] = {}
        self._step = -1
        self._look_at = 0.0
        self._last: Point | None = None
        self._other = OTHER[me.role]
        self.roster.start()

    @property
    def last(self) -> str:
        """The last point that this rank gave or took, "" before the first."""
        return "" if self._last is None else str(self._last)

    # --- what the program calls ------------------------------------------------------------

    def give(self, point: Point, holding: Holding, parcel_of: Callable[[int], Parcel]) -> Given:
        """Send what ``parcel_of(announcement)`` makes to whoever wants it, or keep it for who may."""
        with self._turn:
            self.alive()
            self._advance(point)
            with self.lock:
                parcel = parcel_of(self._announce(point, holding))
                orders = self.dispatch.shelf.orders(parcel)
            if len(orders) < (self.roster.world(self._other) or LAST_STEP):
                self.dispatch.keep(parcel, orders)
            sent = receivers = 0
            channels = set()
            for want in orders.values():
                if want.boxes != ():
                    sent += self.dispatch.send(parcel, want)
                    receivers += 1
                    channels.add(self.roster.peers[want.receiver].channel)
            if not receivers:
                channels = {p.channel for p in self.roster.others(self._other)}
            return Given(sent, receivers, ", ".join(sorted(channels)) or "staged")

    def take(self, point: Point, holding: Holding, *, whole: bool = False) -> Taken:
        """Wait for the other run's value of ``point``, as boxes in ``holding``'s layout or whole."""
        with self._turn:
            self.alive()
            self._expect_somebody()
            self._advance(point)
            with self.lock:
                self._announce(point, holding)
            taken = Taking(self, point, holding, whole).run()
            self._outcome(point, None)
            return taken

    def begin(self, step: int) -> None:
        """This rank enters ``step``; who waits for its points of earlier steps learns of it."""
        with self._turn:
            self.alive()
            if step > self._step:
                self._pass(step)

    def layouts(self, point: Point, senders: tuple[int, ...]) -> list[Holding]:
        """How each of these ranks of the other job holds ``point``."""
        found = [self.ledger.held(Rank(OTHER[self.me.role], rank), point) for rank in senders]
        return [made.holding for made in found if made is not None]

    def world(self, role: str) -> int:
        """How many ranks a job has; 0 while that is not known."""
        return self.roster.world(role) or 0

    def tell_failed(self, point: Point, why: str) -> None:
        """Let the other ranks know that this one did not take ``point``."""
        self._outcome(point, (self.me, why))
        self.roster.tell_all({"t": "failed", "p": list(point), "why": why})

    def _advance(self, point: Point) -> None:
        self._last = point
        if point.step > self._step:
            self._pass(point.step)

    def close(self, why: str = "finished", *, drain: bool = True) -> None:
        """Wait until what is still wanted has been taken, then leave; idempotent."""
        with self._turn:
            if self._closed:
                return
            try:
                if (
                    drain
                    and self.failure is None
                    and (self.roster.peers or self.dispatch.shelf.kept)
                ):
                    self._pass(LAST_STEP)
                    self.dispatch.drain()
            except TwinrunError as error:
                self.failed(error)
            self._closed = True
            reason = why if self.failure is None else f"stopped: {self.failure.summary}"
            self.roster.close(reason)

    def abandon(self) -> None:
        """In a forked child: close the descriptors and nothing else."""
        self._closed = True
        self.roster.abandon()

    def alive(self) -> None:
        """Raise what ended the graft, once something has."""
        now = time.monotonic()
        if now > self._look_at and self.failure is None:
            self._look_at = now + _LOOK_S
            self._look_around()
        if self.failure is not None:
            raise self.failure
        if self._closed:
            raise PeerError("this graft is closed")

    def _expect_somebody(self) -> None:
        """PeerError where all ranks that could send anything had gone before this one came."""
        if not self.roster.left_early:
            return
        early = [rank for rank in self.roster.left_early if rank.role == self._other]
        if early and len(early) == self.roster.world(self._other):
            self.failed(
                PeerError(
                    f"{min(early)} died or ended before it could be met",
                    seen=f"{len(early)} of {len(early)} {self._other} ranks had come and were gone",
                    do=f"look at the {self._other}'s own output",
                )
            )
            self.alive()

    def _look_around(self) -> None:
        """Whoever started both jobs leaves a file when the other one has ended."""
        other = self._other
        directory = self.settings.journal
        if directory and not self.roster.others(other) and ended_mark(directory, other).exists():
            self.failed(
                PeerError(
                    f"the {other} has ended and none of its ranks ever came",
                    do=f"look at the {other}'s own output",
                )
            )

    # --- what the roster reports, on its threads -------------------------------------------

    def failed(self, error: TwinrunError) -> None:
        """The graft is over for this process."""
        with self.lock:
            first = self.failure is None and not self._closed
            if first:
                self.failure = error
        if first:
            self.roster.tell_all({"t": "bye", "why": f"stopped: {error.summary}"})

    def joined(self, peer: Peer) -> None:
        """A peer has come: it hears everything that was announced before."""
        with self.lock:
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
        with self.lock:
            if kind == "hold":
                at = read(header, "since", list, who)
                holding = Holding.read(read(header, "what", dict, who), who)
                number = read(header, "h", int, who)
                self.ledger.announce(
                    peer.rank, Announcement((int(at[0]), int(at[1])), number, holding)
                )
                self.orders.answer(peer, holding.name, number, (int(at[0]), int(at[1])))
            elif kind == "want":
                want = Want.read(peer.rank, header)
                self.dispatch.serve(peer, want, self._step)
            elif kind == "step":
                self.ledger.advance(
                    peer.rank, read(header, "step", int, who), read(header, "last", str, who)
                )
                self.dispatch.sweep()
            elif kind == "where":
                self.roster.tell(peer, {"t": "step", "step": self._step, "last": self.last})
            elif kind == "bye":
                self._bye(peer, read(header, "why", str, who))
            elif kind == "failed":
                point = Point.read(header.get("p"), who)
                if peer.rank.role == self.me.role:
                    self._outcome(point, (peer.rank, read(header, "why", str, who)))
            else:
                raise PeerError(f"{who} sent an unknown message {str(kind)[:40]!r}")

    def missed(self, rank: Rank) -> None:
        """A rank came to the meeting before this one, and has left since."""
        with self.lock:
            self.ledger.end(rank, "had left before this rank came")

    def left(self, peer: Peer) -> None:
        """A peer's connection has closed."""
        with self.lock:
            if peer.goodbye == "finished":
                self.ledger.end(peer.rank, "has finished")
                self.dispatch.sweep()
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
        self.dispatch.sweep()
        if why != "finished" and peer.rank.role != self.me.role:
            self.failed(PeerError(f"{peer.rank} left the graft: {why}"))

    def _outcome(self, point: Point, failure: tuple[Rank, str] | None) -> None:
        text = self._outcomes.add(point, failure)
        if text:
            self._mixed(point, text)

    # --- sending ---------------------------------------------------------------------------

    def _announce(self, point: Point, holding: Holding) -> int:
        current = self._current.get(point.name)
        if current is not None and current[0] is holding:
            return current[1]
        number = self._numbers.setdefault(holding, len(self._numbers))
        self._current[point.name] = (holding, number)
        if current is None or current[1] != number:
            self.ledger.announce(self.me, Announcement(point.at, number, holding))
            self.roster.tell_all(_announcement(point.at, number, holding))
        return number

    def _pass(self, step: int) -> None:
        self._step = step
        with self.lock:
            self.ledger.advance(self.me, step, self.last)
            self.roster.tell_all({"t": "step", "step": step, "last": self.last})
        for peer in self.roster.others(self._other):
            if peer.outlet is not None and peer.goodbye is None and not peer.gone_at:
                peer.outlet.send(passing(step, peer))

    # --- waiting ---------------------------------------------------------------------------

    def limit_s(self) -> float:
        other = self._other
        if not self._met:  # who has come stays on the roster
            self._met = self.roster.world(other) is not None and not self.roster.missing(other)
        return self.settings.timeout_s if self._met else self.settings.meeting_timeout_s

    def stalled(self, what: str, do: str) -> PeerError:
        other = self._other
        missing = self.roster.missing(other)
        if missing:
            return PeerError(f"{what}: {missing}", do="start it, or look why it has not come")
        self.roster.tell_all({"t": "where"})
        time.sleep(_ASK_S)
        lasts = "; ".join(
            f"{p.rank}: {self.ledger.of(p.rank).last or 'none'}" for p in self.roster.others(other)
        )
        return PeerError(what, seen=f"last points: here: {self.last or 'none'}; {lasts}", do=do)


def _announcement(since: tuple[int, int], number: int, holding: Holding) -> Header:
    return {"t": "hold", "since": list(since), "h": number, "what": holding.as_json()}
