"""What a rule did and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from twinrun.launch.args import LaunchArgs


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of one rule; ``level`` is ``debug``, ``info`` or ``warning``."""

    rule: str
    level: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be carried out: what was seen, and the way on."""

    rule: str
    seen: str
    do: str

    def __str__(self) -> str:
        return f"{self.seen}; {self.do}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A launch that can be carried out: final arguments, final environment, and every decision."""

    args: LaunchArgs
    environment: Mapping[str, str]
    decisions: tuple[Decision, ...]

    def of(self, rule: str) -> tuple[Decision, ...]:
        """The decisions of one rule."""
        return tuple(each for each in self.decisions if each.rule == rule)
