"""What one stretch of code does with the baseline's values: a whole module, or its own code alone.

In a pass whose grafts reset every boundary of some modules, each stretch between two boundaries
starts from the baseline's values and answers for itself. What it made is recorded before the graft at
its end replaced it. A module none of whose children were reset answers as a whole; one with such
children answers for its own code: what it hands to them, and what it makes of what they gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from twinrun.diagnosis.finding import State
from twinrun.diagnosis.tree import Module
from twinrun.diagnosis.weighing import Weighed, Weighing

Stretch = Literal["whole", "own code"]
_WEIGHT = {"differs": 3, "undecided": 2, "close": 1, "equal": 0}


@dataclass
class Segment:
    """One stretch, judged. ``made`` is everything that it made, in order; ``worst`` and ``first`` of it.

    ``moved``: whether any bit of what it made is another. ``why`` where it could not be judged.
    """

    module: Module
    stretch: Stretch
    how: Literal["grafted", "given", ""]
    state: State
    made: Sequence[Weighed] = ()
    worst: Weighed | None = None
    first: Weighed | None = None
    moved: bool = False
    why: str = ""


def whole(weighing: Weighing, module: Module, reset: Set[str]) -> Segment:
    """The module from its inputs to its outputs."""
    grafted = module.path in reset
    unlike = _unlike(weighing.inputs(module))
    if unlike:
        return Segment(module, "whole", "", "unknown", why=unlike)
    made = weighing.outputs(module, native=grafted)
    return _judged(module, "whole", "grafted" if grafted else "given", made)


def own_code(weighing: Weighing, module: Module, reset: Set[str]) -> Segment:
    """What the module itself does: between its children, and with their results."""
    unlike = _unlike(weighing.inputs(module)) or _unlike(
        one for child in module.children for one in weighing.outputs(child)
    )
    if unlike:
        return Segment(module, "own code", "", "unknown", why=unlike)
    made = [
        one
        for child in module.children
        for one in weighing.inputs(child, native=child.path in reset)
    ]
    made += weighing.outputs(module, native=module.path in reset)
    return _judged(module, "own code", "grafted", made)


def segments(weighing: Weighing, modules: Iterable[Module], reset: Set[str]) -> list[Segment]:
    """Every module of ``modules`` that this pass says something about, each judged once.

    A leaf that was not reset counts where what it was given is the baseline's all the same.
    """
    found = []
    for module in modules:
        if any(one.path in reset for one in module.below()):
            found.append(own_code(weighing, module, reset))
        elif module.path in reset:
            found.append(whole(weighing, module, reset))
        elif module.leaf and (given := whole(weighing, module, reset)).state != "unknown":
            found.append(given)
    return found


def _judged(
    module: Module, stretch: Stretch, how: Literal["grafted", "given", ""], made: list[Weighed]
) -> Segment:
    weighed = [one for one in made if one.measured in _WEIGHT]
    if not weighed:
        return Segment(module, stretch, "", "unknown", made, why="it gave back no tensor")
    worst = max(weighed, key=lambda one: (_WEIGHT[one.measured], one.ratio or 0.0))
    state: State = "differs" if worst.measured == "differs" else "clean"
    if worst.measured == "undecided":
        state = "undecided"
    first = next((one for one in weighed if one.measured == "differs"), None)
    first = first or next((one for one in weighed if one.measured != "equal"), None)
    moved = any(one.measured != "equal" for one in weighed)
    return Segment(module, stretch, how, state, made, worst, first, moved)


def _unlike(given: Iterable[Weighed]) -> str:
    """Why these values cannot be called the baseline's, or nothing."""
    for one in given:
        if one.measured == "equal":
            continue
        cast = (
            one.baseline is not None
            and one.target is not None
            and one.baseline.dtype != one.target.dtype
        )
        if cast and one.measured == "close":
            continue
        lacking = "is not in this pass" if one.measured == "unmatched" else "is not the baseline's"
        return f"{one.name} {lacking}"
    return ""
