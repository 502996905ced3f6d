"""The graft of one process: which points flow where, and what becomes of each of them."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twinrun.errors import PeerError, TwinrunError, UsageError
from twinrun.grafting.directions import Directions
from twinrun.grafting.exchange import Exchange
from twinrun.grafting.guard import Guard
from twinrun.grafting.journal import Journal
from twinrun.grafting.kept import Kept
from twinrun.grafting.passage import Passage, dressed
from twinrun.grafting.point import RECEIVER, SENDER, Point, Rank
from twinrun.grafting.settings import Settings
from twinrun.grafting.site import Site, Source
from twinrun.grafting.taking import PointFailed
from twinrun.grafting.transform import TransformFailed
from twinrun.recorder.payload import unseen
from twinrun.recorder.rank import standing

OpenSource = Callable[["Session", Rank, int], Source]


class Session:
    """Grafts of this process. Thread-safe. Joins the other job when it is first needed.

    Raises into the program only with ``strict``; otherwise what fails is told, counted and left alone.
    ``started`` is called once, when the process turns out to be a rank of the graft.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_source: OpenSource | None = None,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings.check()
        self.directions = Directions(self.settings)
        self._kept = Kept()
        self._open_source = open_source or _live
        self._started = started
        self._source: Source | None = None
        self._passage: Passage | None = None
        self._journal: Journal | None = None
        self._lock = threading.RLock()
        self._counts: dict[tuple[str, bool], int] = {}
        self._counting = -1
        self._told: set[str] = set()
        self.ended = ""
        """why the graft ended early, "" while it did not"""
        self._closed = False
        self.rank = Rank(settings.role, 0)

    # --- deciding --------------------------------------------------------------------------

    def direction(self, site: Site) -> str | None:
        """b2t, t2b, or None where no filter takes this point; UsageError where both do."""
        return self.directions.of(site, self.rank.rank)

    @property
    def over(self) -> bool:
        """Whether nothing is grafted any more."""
        return self._closed or bool(self.ended)

    def asks(self, site: Site) -> bool:
        """Whether a filter takes this point (where both do, it will be told as a failure)."""
        try:
            return not self.over and self.direction(site) is not None
        except UsageError:
            return True

    def receives(self, site: Site) -> bool:
        """Whether this side takes the other's value here."""
        try:
            direction = self.direction(site)
        except UsageError:
            return False
        return direction is not None and RECEIVER[direction] == self.settings.role

    # --- grafting --------------------------------------------------------------------------

    def start(self) -> Passage:
        """Join the other job, or open the capture; at once the second time. TwinrunError."""
        passage = self._passage
        if passage is not None:
            return passage
        with self._lock:
            if self._passage is None:
                self.rank = Rank(self.settings.role, standing().rank)
                self._started()
                source = self._open_source(self, self.rank, standing().world_size)
                self._source = source
                self._passage = Passage(self.settings, self.rank, source, self.journal)
            return self._passage

    @property
    def source(self) -> Source:
        """What stands at the other end, once the graft has started."""
        self.start()
        assert self._source is not None
        return self._source

    @property
    def running(self) -> bool:
        """Whether this process has joined."""
        return self._source is not None

    @property
    def journal(self) -> Journal:
        """This process's account, begun when it is first needed."""
        with self._lock:
            if self._journal is None:
                self.rank = Rank(self.settings.role, standing().rank)
                directory = Path(self.settings.journal) if self.settings.journal else None
                self._journal = Journal(self.rank, self.settings.log, directory)
            return self._journal

    def begin(self, step: int) -> None:
        """A step begins: ranks that wait for a point of an earlier one learn that it will not come."""
        if self.over:
            return
        self._kept.begin()
        try:
            self.source.begin(step)
        except TwinrunError as error:
            self._over(error)

    def pass_through(self, site: Site, value: Any, *, extras: Any = None) -> tuple[bool, Any]:
        """Send ``value``, or wait for the other run's: (whether it was replaced, the value to use).

        A replaced tensor is detached, on the same device, of the same shape and dtype; a DTensor stays
        one. ``value`` itself is never changed.
        """
        if self.over:
            return False, value
        try:
            direction = self.direction(site)
        except UsageError as error:
            self._fail(self._point(site), "", error)
            return False, value
        if direction is None:
            return False, value
        if site.recompute:
            return self._again(site, direction, value)
        point = self._point(site)
        return self._passed(site, point, direction, value, extras)

    def _again(self, site: Site, direction: str, value: Any) -> tuple[bool, Any]:
        """In a recomputed forward: what the first one was given; nothing is sent twice."""
        if RECEIVER[direction] != self.settings.role:
            return False, value
        found = self._kept.again(site)
        if isinstance(found, str):
            self._tell_once(f"{site.name} was not grafted when its forward was run again: {found}")
            return False, value
        return True, found

    def _passed(
        self, site: Site, point: Point, direction: str, value: Any, extras: Any
    ) -> tuple[bool, Any]:
        try:
            passage = self.start()
            held = passage.held(site, value)
            with unseen():
                if SENDER[direction] == self.settings.role:
                    passage.give(site, point, direction, value, held, extras)
                    return False, value
                new = passage.take(site, point, direction, value, held)
            new = dressed(new, value)
            self._kept.keep(site, new)
            return True, new
        except PointFailed as error:
            self._fail(point, direction, error)
        except UsageError as error:
            # A value or extras that cannot be sent: this point's fault only, once we are running.
            self._fail(point, direction, error) if self.running else self._over(error)
        except TransformFailed as error:
            self._fail(point, direction, PointFailed(str(error)), transform=error)
        except TwinrunError as error:
            self._over(error)
        return False, value

    def fail(self, site: Site, why: str) -> None:
        """A point that was asked for and cannot be grafted here."""
        self._fail(self._point(site), self.direction(site) or "", PointFailed(why))

    def close(self, *, crashed: bool = False) -> None:
        """Leave the graft once what is wanted was taken, and print the summary; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._source is not None:
            self._source.close("crashed" if crashed else "finished", drain=not crashed)
            if self._source.failure is not None:
                self.ended = self.ended or self._source.failure.summary
        if self._journal is not None:
            self._journal.summary(self.ended)
            self._journal.close()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connections without a word."""
        self._closed = True
        if self._source is not None:
            self._source.abandon()

    def guarding(self) -> Guard:
        """A block around work inside the program: errors of ours end the graft, not the program.

        With ``strict``, what failed is raised.
        """
        return Guard(self.broke)

    def broke(self, error: BaseException) -> bool:
        """An error inside a guarded block; whether the program shall be spared it."""
        if isinstance(error, TwinrunError):
            return not self.settings.strict
        if not isinstance(error, Exception):
            return False
        trace = "".join(traceback.format_exception(error))
        self._over(PeerError(f"grafting broke down: {type(error).__name__}: {error}", seen=trace))
        return True

    # --- inside ----------------------------------------------------------------------------

    def _point(self, site: Site) -> Point:
        with self._lock:
            if site.step != self._counting:
                self._counting = site.step
                self._counts.clear()
            key = (site.name, site.recompute)
            occurrence = self._counts.get(key, -1) + 1
            self._counts[key] = occurrence
            return Point(site.step, site.name, occurrence)

    def _fail(
        self,
        point: Point,
        direction: str,
        error: TwinrunError,
        transform: TransformFailed | None = None,
    ) -> None:
        why = str(error).removeprefix(f"{point}: ")
        trace = transform.trace if transform is not None else ""
        self.journal.note_failed(
            point, direction, why, transform=transform is not None, trace=trace
        )
        if self._source is not None:
            self._source.tell_failed(point, error.summary)
        if self.settings.strict:
            self.ended = error.summary
            raise error

    def _over(self, error: TwinrunError) -> None:
        if not self.ended:
            self.ended = error.summary
            self.journal.say(f"graft ended, the program goes on without it: {error}")
        if self.settings.strict:
            raise error

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.journal.say(text)


def _live(session: Session, me: Rank, world: int) -> Source:
    return Exchange(session.settings, me, world, session.journal.note_mixed)
