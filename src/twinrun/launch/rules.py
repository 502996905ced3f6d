"""The rules of a launch, in their order, and what they make of its arguments. Pure.

The order is pinned: arguments, platform, parallel sizes, collectives (the guard), observers, and the
CUDA graph variables last, so that what a graph captures sees the final environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twinrun.env import check
from twinrun.errors import LaunchError, VariableError
from twinrun.launch.args import LaunchArgs, Platform
from twinrun.launch.arguments import check_arguments
from twinrun.launch.collectives import settle_collectives
from twinrun.launch.decision import Problem, Resolved
from twinrun.launch.graphs import settle_graphs
from twinrun.launch.observers import settle_observers
from twinrun.launch.platform import fit_platform
from twinrun.launch.schedulers import read_scheduler
from twinrun.launch.sizes import check_sizes
from twinrun.launch.state import State
from twinrun.launch.wants import Observers

Rule = Callable[[State], None]

RULES: tuple[tuple[str, Rule], ...] = (
    ("scheduler", read_scheduler),
    ("arguments", check_arguments),
    ("platform", fit_platform),
    ("sizes", check_sizes),
    ("collectives", settle_collectives),
    ("observers", settle_observers),
    ("graphs", settle_graphs),
)


def resolve(
    args: LaunchArgs,
    environment: Mapping[str, str],
    platform: Platform = Platform(),  # noqa: B008 - frozen
    observers: Observers | None = None,
) -> Resolved:
    """What will really be launched, with every decision and its reason.

    ``observers`` left out are those that the environment tells of. ``environment`` is not changed. ``LaunchError`` names all problems at once, ``VariableError`` all
    variables that are unknown or do not parse.
    """
    check(environment)
    state = State.of(args, environment, platform, observers or Observers.of(environment))
    for name, rule in RULES:
        _apply(name, rule, state)
    if state.problems:
        raise _refusal(state.problems)
    return Resolved(state.args, state.environ, tuple(state.decisions))


def _apply(name: str, rule: Rule, state: State) -> None:
    try:
        rule(state)
    except VariableError as error:
        seen = error.seen or error.summary
        state.refuse(f"launch.{name}", seen, f"give it {error.expected}, or unset it")


def _refusal(problems: list[Problem]) -> LaunchError:
    if len(problems) == 1:
        only = problems[0]
        return LaunchError(f"this launch cannot start: {only.seen}.", do=only.do)
    told = ("\n" + " " * 12).join(f"{each.seen}: {each.do}" for each in problems)
    return LaunchError(
        f"this launch cannot start: {len(problems)} problems.",
        seen=told,
        do="mend each of them; twinrun launch --dry-run shows what would run",
    )
