"""The launch while the rules work on it: each rule sees what the rules before it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from twinrun.env import Origin, Variable
from twinrun.launch.args import LaunchArgs, Platform
from twinrun.launch.decision import Decision, Problem
from twinrun.launch.wants import Observers


@dataclass(slots=True)
class State:
    """Arguments and environment as they stand, and what was decided or refused so far."""

    args: LaunchArgs
    environ: dict[str, str]
    platform: Platform
    observers: Observers
    decisions: list[Decision] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        args: LaunchArgs,
        environment: Mapping[str, str],
        platform: Platform,
        observers: Observers,
    ) -> State:
        """A state that shares nothing with the caller's environment."""
        return cls(args, dict(environment), platform, observers)

    def adjust(self, rule: str, level: str, text: str, **changes: Any) -> None:
        """Change arguments, with the reason."""
        self.args = replace(self.args, **changes)
        self.decide(rule, level, text)

    def decide(self, rule: str, level: str, text: str) -> None:
        """Note a decision."""
        self.decisions.append(Decision(rule, level, text))

    def refuse(self, rule: str, seen: str, do: str) -> None:
        """Note a problem; all of them are raised together at the end."""
        self.problems.append(Problem(rule, seen, do))

    def write(self, variable: Variable[Any, Any], value: Any, origin: Origin) -> None:
        """Set a variable for every process of the launch, with where it came from."""
        variable.set(value, origin, self.environ)
