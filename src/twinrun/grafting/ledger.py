"""What every rank of both jobs has said about holding points; pure bookkeeping."""

from __future__ import annotations

from dataclasses import dataclass, field

from twinrun.grafting.point import Holding, Point, Rank

HISTORY = 1024
"""Changes of layout kept for each name and rank; the older ones cannot be asked for any more."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """From the point at ``since`` on, a rank holds its name as ``holding``, numbered ``number``."""

    since: tuple[int, int]
    number: int
    holding: Holding


@dataclass
class Progress:
    """How far one rank has come."""

    step: int = 0
    last: str = ""
    ended: str = ""
    """why it takes no further part, "" while it does"""
    announced: dict[str, list[Announcement]] = field(default_factory=dict)


class Ledger:
    """Announcements of all ranks. ``version`` grows with every change."""

    def __init__(self) -> None:
        self.ranks: dict[Rank, Progress] = {}
        self.worlds: dict[str, int] = {}
        self.version = 0

    def of(self, rank: Rank) -> Progress:
        """The progress of ``rank``, made on first use."""
        return self.ranks.setdefault(rank, Progress())

    def announce(self, rank: Rank, made: Announcement) -> None:
        """``rank`` holds a name from some point on."""
        history = self.of(rank).announced.setdefault(made.holding.name, [])
        history.append(made)
        del history[:-HISTORY]
        self.version += 1

    def advance(self, rank: Rank, step: int, last: str) -> None:
        """``rank`` has begun ``step``."""
        progress = self.of(rank)
        if step > progress.step:
            progress.step = step
            self.version += 1
        progress.last = last or progress.last

    def end(self, rank: Rank, why: str) -> None:
        """``rank`` takes no further part."""
        self.of(rank).ended = why
        self.version += 1

    def held(self, rank: Rank, point: Point) -> Announcement | None:
        """How ``rank`` holds ``point``, as far as it has said."""
        progress = self.ranks.get(rank)
        at = point.at
        for made in reversed(progress.announced.get(point.name, ())) if progress else ():
            if made.since <= at:
                return made
        return None

    def absent(self, rank: Rank, point: Point) -> bool:
        """Whether ``rank`` certainly does not hold ``point``: it went past its step, or has ended."""
        return self.held(rank, point) is None and self.past(rank, point)

    def past(self, rank: Rank, point: Point) -> bool:
        """Whether ``rank`` has gone on from the step of ``point``, or has ended: it asks for it no more."""
        progress = self.ranks.get(rank)
        return progress is not None and (bool(progress.ended) or progress.step > point.step)
