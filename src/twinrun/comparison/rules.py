"""Rules of a map, applied to the points of two runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from twinrun.comparison.mapfile import Entry, MapFile, Step
from twinrun.comparison.pattern import Pattern
from twinrun.comparison.points import Key, Point, Points
from twinrun.errors import MapError


@dataclass(frozen=True)
class Rule:
    """One entry of a map, numbered from 1."""

    number: int
    entry: Entry

    @property
    def renames(self) -> bool:
        """Whether nothing but the name differs."""
        entry = self.entry
        return entry.dim is None and not entry.baseline_steps and not entry.target_steps

    def join(self, tensors: Sequence[torch.Tensor], *, baseline: bool) -> torch.Tensor:
        """One side's tensors as one: concatenated, then stepped. ValueError where they do not fit."""
        steps = self.entry.baseline_steps if baseline else self.entry.target_steps
        try:
            made = tensors[0]
            if len(tensors) > 1:
                assert self.entry.dim is not None
                made = torch.cat(list(tensors), dim=self.entry.dim)
            for step in steps:
                made = _stepped(made, step)
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"{self} does not fit: {str(error).splitlines()[0]}") from error
        return made

    def __str__(self) -> str:
        one, two = (" + ".join(map(str, side)) for side in (self.entry.baseline, self.entry.target))
        return f"rule {self.number} ({one} = {two})"


@dataclass(frozen=True, slots=True)
class Match:
    """Points of both runs that a rule joins."""

    baseline: tuple[Point, ...]
    target: tuple[Point, ...]
    rule: Rule


class RuleSet:
    """All rules of a map."""

    def __init__(self, held: MapFile) -> None:
        self._rules = [Rule(at, entry) for at, entry in enumerate(held.rules, 1)]

    def apply(self, baseline: Points, target: Points) -> list[Match]:
        """Every match. MapError names all rules that match nothing and all points matched twice."""
        matches: list[Match] = []
        problems: list[str] = []
        claims: tuple[dict[Key, Rule], dict[Key, Rule]] = ({}, {})
        for rule in self._rules:
            found = list(_matches(rule, baseline, target))
            if not found:
                problems.append(_nothing(rule, baseline, target))
            for match in found:
                problems += _claim(claims[0], match.baseline, rule, "baseline")
                problems += _claim(claims[1], match.target, rule, "target")
            matches += found
        if problems:
            raise MapError(
                "the map does not fit these captures",
                seen="; ".join(problems[:20]) + (" ..." if len(problems) > 20 else ""),
                expected="every rule matches, and no point is named by two rules",
                do="list the names with twinrun show; see docs/map.md",
            )
        return matches


def _matches(rule: Rule, baseline: Points, target: Points) -> Iterable[Match]:
    lead, *_ = rule.entry.baseline
    for point in baseline:
        held = lead.match(point.key.name)
        if held is None:
            continue
        sides = (
            _find(rule.entry.baseline, held, point.key, baseline),
            _find(rule.entry.target, held, point.key, target),
        )
        if sides[0] is not None and sides[1] is not None:
            yield Match(sides[0], sides[1], rule)


def _find(
    patterns: Iterable[Pattern], held: dict[str, str], key: Key, points: Points
) -> tuple[Point, ...] | None:
    found = []
    for pattern in patterns:
        name = pattern.render(held)
        point = points.get(replace(key, name=name)) if name is not None else None
        if point is None:
            return None
        found.append(point)
    return tuple(found)


def _claim(taken: dict[Key, Rule], points: Iterable[Point], rule: Rule, side: str) -> list[str]:
    told = []
    for point in points:
        first = taken.setdefault(point.key, rule)
        if first is not rule:
            told.append(f"{point.key.name} of the {side} is named by {first} and {rule}")
    return told


def _nothing(rule: Rule, baseline: Points, target: Points) -> str:
    lacking = [
        side
        for side, patterns, points in (
            ("baseline", rule.entry.baseline, baseline),
            ("target", rule.entry.target, target),
        )
        if not all(any(p.match(point.key.name) is not None for point in points) for p in patterns)
    ]
    where = f"nothing in the {' and the '.join(lacking)}" if lacking else "no common captures"
    return f"{rule} matches {where}"


def _stepped(tensor: torch.Tensor, step: Step) -> torch.Tensor:
    if step.transpose is not None:
        return tensor.transpose(*step.transpose)
    if step.reshape is not None:
        return tensor.reshape(step.reshape)
    if step.cast is not None:
        return tensor.to(getattr(torch, step.cast))
    assert step.scale is not None
    wide = tensor if tensor.dtype in (torch.float64, torch.complex128) else _widened(tensor)
    return wide * step.scale


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_complex() else tensor.float()
