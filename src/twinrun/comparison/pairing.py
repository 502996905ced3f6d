"""Which points of both runs are held side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache

from twinrun.comparison.points import Key, Point, Points
from twinrun.comparison.rules import Rule, RuleSet

# A nearest name is looked for among at most so many names that end alike: the search is quadratic.
_CANDIDATES = 2000


@dataclass(frozen=True, slots=True)
class Pair:
    """Points to compare: one a side, or several that `rule` joins. An empty side is unmatched."""

    baseline: tuple[Point, ...]
    target: tuple[Point, ...]
    rule: Rule | None = None

    @property
    def lead(self) -> Point:
        """The point that names the pair."""
        return (self.baseline or self.target)[0]


def pair_up(baseline: Points, target: Points, rules: RuleSet | None = None) -> Iterator[Pair]:
    """Every point of both runs, in execution order of the baseline, then target-only points.

    Rules of a map come first; what they do not name pairs by key. A recomputed point that the other
    run lacks pairs with that run's forward. MapError when a rule matches nothing or a point twice.
    """
    matches = rules.apply(baseline, target) if rules is not None else []
    mapped = {match.baseline[0].key: match for match in matches}
    hidden = {point.key for match in matches for point in match.baseline}
    taken = {point.key for match in matches for point in match.target}
    plain = {p.key: q for p in baseline if (q := _partner(p.key, target, taken)) is not None}
    taken.update(partner.key for key, partner in plain.items() if key not in hidden)
    plain.update(_same_argument(baseline, target, {*plain, *hidden}, taken))
    taken.update(partner.key for key, partner in plain.items() if key not in hidden)
    for point in baseline:
        match = mapped.get(point.key)
        if match is not None:
            yield Pair(match.baseline, match.target, match.rule)
        elif point.key not in hidden:
            partner = plain.get(point.key)
            yield Pair((point,), (partner,) if partner else ())
    for point in target:
        if point.key not in taken:
            forward = _forward(point.key, baseline) if point.key.recompute else None
            usable = forward is not None and forward.key not in hidden
            yield Pair((forward,) if forward is not None and usable else (), (point,))


def _partner(key: Key, other: Points, taken: set[Key]) -> Point | None:
    found = other.get(key)
    if found is not None and key not in taken:
        return found
    return _forward(key, other) if key.recompute else None


def _same_argument(
    baseline: Points, target: Points, paired: set[Key], taken: set[Key]
) -> dict[Key, Point]:
    """Inputs that one run names by position and the other by parameter (a wrapped ``forward``).

    They pair where each is the only unpaired input of the same module call.
    """
    left = _lone_inputs(baseline, paired)
    right = _lone_inputs(target, taken)
    return {left[call].key: right[call] for call in left.keys() & right.keys()}


def _lone_inputs(points: Points, paired: set[Key]) -> dict[Key, Point]:
    """Module call (as a key) -> its only unpaired input."""
    found: dict[Key, list[Point]] = {}
    for point in points:
        module, mark, port = point.key.name.partition(":input.")
        if mark and point.key not in paired:
            # Its gradients are told apart by what follows the port: ``:grad``, ``:grad.own``.
            _, colon, gradient = port.partition(":")
            found.setdefault(replace(point.key, name=module + colon + gradient), []).append(point)
    return {call: held[0] for call, held in found.items() if len(held) == 1}


def _forward(key: Key, other: Points) -> Point | None:
    return other.get(replace(key, recompute=False))


class Nearest:
    """Names of one run that look like a given one."""

    def __init__(self, points: Points) -> None:
        self._by_port: dict[str, list[str]] = {}
        for name in dict.fromkeys(point.key.name for point in points):
            self._by_port.setdefault(name.rpartition(":")[2], []).append(name)
        self._find = lru_cache(maxsize=4096)(self._search)

    def find(self, key: Key, points: Points) -> str:
        """The nearest name, with what is missing where the name itself is there; or nothing."""
        if key.name in self._by_port.get(key.name.rpartition(":")[2], ()):
            return f"{key.name} ({_missing(key, points)})"
        return self._find(key.name)

    def _search(self, name: str) -> str:
        port = name.rpartition(":")[2]
        alike = self._by_port.get(port) or [one for held in self._by_port.values() for one in held]
        found = get_close_matches(name, alike[:_CANDIDATES], n=1, cutoff=0.5)
        return found[0] if found else ""


def _missing(key: Key, points: Points) -> str:
    held = [point.key for point in points if point.key.name == key.name]
    if all(one.step != key.step for one in held):
        return f"not in step {key.step}"
    return "fewer occurrences" if key.occurrence else "held by another job or recomputation"
