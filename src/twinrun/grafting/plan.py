"""What one receiver takes from which sender, what is known of a job, and why there may be no plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from twinrun.grafting.point import Holding
from twinrun.layout.box import Box
from twinrun.layout.mesh import Mesh

Holdings = Mapping[int, Holding]


@dataclass(frozen=True, slots=True)
class Part:
    """One box: where it lies at the sender, where it goes, whether it is added to what is there.

    ``check``: it must hold the very bits that another sender put there, and is then dropped.
    """

    source: Box
    wanted: Box
    add: bool = False
    check: bool = False


@dataclass(frozen=True, slots=True)
class Pull:
    """What the receiver takes from one sender; no parts means its whole value."""

    sender: int
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one receiver takes at a point, in the order of addition and of checks."""

    pulls: tuple[Pull, ...]
    zeros: tuple[Box, ...] = ()
    note: str = ""
    sums: bool = field(init=False)
    ordered: bool = field(init=False)
    """whether boxes of one sender have to wait for those of the senders before it"""
    tiles: bool = field(init=False)
    """whether boxes of several senders fill the tensor as they are, each element once"""

    def __post_init__(self) -> None:
        parts = [part for pull in self.pulls for part in pull.parts]
        object.__setattr__(self, "sums", any(part.add for part in parts))
        object.__setattr__(self, "ordered", any(part.add or part.check for part in parts))
        object.__setattr__(
            self, "tiles", len(self.pulls) > 1 and not self.ordered and not self.zeros
        )

    def is_all_of(self, shape: tuple[int, ...]) -> bool:
        """Whether it is one box from one sender, as it is, that fills a tensor of ``shape``."""
        parts = [part for pull in self.pulls for part in pull.parts]
        return len(self.pulls) == len(parts) == 1 and parts[0].wanted.covers(shape)


@dataclass(frozen=True, slots=True)
class Wait:
    """Not known yet, and what is missing."""

    missing: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """No plan can be made, and why, and what to do."""

    reason: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """What is known of one job at a point.

    ``held``: rank -> holding. ``absent``: ranks that certainly do not hold it. ``world``: its size.
    """

    role: str
    world: int
    held: Holdings
    absent: frozenset[int] = frozenset()

    @property
    def complete(self) -> bool:
        """Whether every rank is known to hold it or not to."""
        return not self.open_ranks

    @property
    def open_ranks(self) -> list[int]:
        """Ranks of which nothing is known yet, stages of another pipeline position left out."""
        known = set(self.held) | self.absent
        stages = {h.coordinates().get("pp", (0, 1))[0] for h in self.held.values()}
        grid = next((h.mesh for h in self.held.values() if h.mesh), ())
        return [
            rank
            for rank in range(self.world)
            if rank not in known and not _other_stage(rank, self.world, grid, stages)
        ]

    @property
    def awaited(self) -> Wait:
        """A wait for all that is not known yet."""
        ranks = self.open_ranks
        many = "s" if len(ranks) != 1 else ""
        return Wait(f"{self.role} rank{many} {', '.join(map(str, ranks))}")


def _other_stage(
    rank: int, world: int, grid: tuple[tuple[str, int, int], ...], stages: set[int]
) -> bool:
    """Whether a full grid puts ``rank`` at a pipeline position that holds the point nowhere."""
    sizes = {axis: size for axis, _, size in grid}
    if sizes.get("pp", 1) == 1 or prod(sizes.values()) != world:
        return False
    return Mesh.at(rank, sizes)["pp"][0] not in stages
