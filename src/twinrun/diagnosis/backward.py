"""The backward pass: which module sends back, or gives its weights, another gradient than it should.

Every module's output is given the baseline's gradient; what the module makes of it - the gradient of
each of its inputs through itself alone, and of its own weights - is held against the baseline's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import replace

from twinrun.comparison.points import Point
from twinrun.comparison.result import Result
from twinrun.comparison.view import View
from twinrun.diagnosis.finding import Proof, Suspect
from twinrun.diagnosis.tree import Module, Tree
from twinrun.diagnosis.weighing import Weighed, Weighing

OWN, NATIVE, TOTAL, WEIGHT = ":grad.own", ":grad.native", ":grad", ":parameter.grad"
_ALIKE = ("equal", "close")


def forward_agrees(result: Result) -> bool:
    """Whether nothing but gradients is apart."""
    return all(row.agrees for row in result.rows if row.kind != "gradient")


def gradients_agree(result: Result) -> bool:
    """Whether every gradient of both runs agrees."""
    return all(row.agrees for row in result.rows if row.kind == "gradient")


def outputs_of(tree: Tree) -> str:
    """A filter of the gradients that reach the outputs of every module."""
    listed = ", ".join(f'"{one.path}"' for one in tree)
    return f'(kind == "gradient" and name ~ "*:output*:grad" and module in ({listed}))'


class Backward:
    """The baseline's gradients beside those of a pass whose outputs' gradients were grafted."""

    def __init__(self, weighing: Weighing, tree: Tree) -> None:
        self._weighing = weighing
        self._tree = tree
        self._by_module: dict[str, list[Point]] = defaultdict(list)
        for point in weighing.runs[0]:
            record = weighing.runs[0].first(point)
            if record.kind == "gradient" and not record.recompute:
                self._by_module[_module(point.key.name)].append(point)

    def suspects(self) -> list[Suspect]:
        """One for each module whose own backward code differs, in the order of the backward pass."""
        found = [one for module in self._tree if (one := self._suspect(module)) is not None]
        return sorted(found, key=lambda one: one.row.position if one.row else 0)

    def _suspect(self, module: Module) -> Suspect | None:
        if not self._given(module):
            return None
        made = self._made(module)
        apart = [one for one in made if one.measured == "differs"]
        if not apart or (module.children and not self._children_clean(module)):
            return None
        first = min(apart, key=lambda one: self._weighing.row(one).position)
        self._weighing.hint(first)
        row = self._weighing.row(first)
        names = ", ".join(one.name for one in apart[:3])
        why = f"the gradient of its output is the baseline's; apart: {names}"
        return Suspect(
            module.path,
            module.module_class,
            first.name,
            "gradient",
            row=row,
            hint=row.hint,
            why=why,
        )

    def _given(self, module: Module) -> bool:
        """Whether every gradient that reached the module's outputs is the baseline's."""
        points = self._at_outputs(module)
        return bool(points) and all(one.measured in _ALIKE for one in self._weighed(points, module))

    def _made(self, module: Module) -> list[Weighed]:
        made = self._weighed(self._made_by(module), module)
        for child in module.children:
            made += self._weighed(self._at_outputs(child), child, NATIVE)
        return made

    def _children_clean(self, module: Module) -> bool:
        """Whether what the children sent back is right: the module's own share is what is left."""
        return all(one.measured in _ALIKE for child in module.children for one in self._made(child))

    def _at_outputs(self, module: Module) -> list[Point]:
        return [
            point
            for point in self._by_module[module.path]
            if _port(point.key.name).startswith("output") and point.key.name.endswith(TOTAL)
        ]

    def _made_by(self, module: Module) -> list[Point]:
        return [
            point
            for point in self._by_module[module.path]
            if point.key.name.endswith((OWN, WEIGHT))
        ]

    def _weighed(self, points: Iterable[Point], module: Module, ending: str = "") -> list[Weighed]:
        """Pairs with the pass's points; ``ending`` stands there in place of the total's."""
        found = []
        for point in points:
            key = point.key
            if ending:
                key = replace(key, name=key.name.removesuffix(TOTAL) + ending)
            partner = self._weighing.runs[1].get(key)
            if partner is not None:
                found.append(self._weighing.examine(point, partner, module, gradient=True))
        return found


def sent_back(suspects: list[Suspect], result: Result) -> list[str]:
    """The gradients that go on from the suspects to what was computed before them."""
    known = {row.name for row in result.rows if row.kind == "gradient"}
    names = [f"{one.name.removesuffix(OWN)}{TOTAL}" for one in suspects if one.name.endswith(OWN)]
    return [name for name in names if name in known]


def same_tensors(view: View, gradients: Iterable[str]) -> set[str]:
    """The gradients of the very tensors that these are gradients of: as recorded before a graft.

    A record's source is the same value where it was seen last, whose own source is that before it.
    What a module around one of them sends back by itself holds the share that the graft replaced.
    """
    held = {(one.process, one.number): one for one in view.records}
    wanted = {name.removesuffix(TOTAL) for name in gradients}
    inside = {_module(name) for name in wanted}
    waiting = [one for one in view.records if one.name in wanted]
    found: set[str] = set()
    while waiting:
        record = waiting.pop()
        for number in record.sources:
            source = held.get((record.process, number))
            if source is not None and f"{source.name}{TOTAL}" not in found:
                found.add(f"{source.name}{TOTAL}")
                around = _module(source.name)
                if any(path.startswith(f"{around}.") or not around for path in inside):
                    found.add(f"{source.name}{OWN}")
                waiting.append(source)
    return found


def proof_of(
    result: Result, suspects: list[Suspect], points: list[str], before: Set[str] = frozenset()
) -> Proof:
    """Whether all other gradients agree in ``result``: in a pass where ``points`` were grafted, or as
    the run went where nothing is computed from the suspects' own. ``before`` are left out.
    """
    modules = {one.module for one in suspects}
    mine = {*points, *before}
    rest = [
        row
        for row in result.rows
        if row.kind == "gradient" and _module(row.name) not in modules and row.name not in mine
    ]
    apart = [row for row in rest if not row.agrees]
    told = tuple(points) or tuple(sorted({one.name for one in suspects}))
    if not rest:
        return Proof("not run", told, text="no other gradient was recorded")
    if not apart:
        text = f"every other gradient ({len(rest)}) agrees"
        return Proof("healed", told, "every other gradient", text=text)
    worst = max(apart, key=lambda row: row.ratio or 0.0)
    left = worst.measures.relative_l2 if worst.measures else None
    text = f"{len(apart)} of {len(rest)} other gradients do not agree"
    return Proof("not healed", told, worst.name, None, left, worst.ratio, text)


def proven(suspects: list[Suspect], proof: Proof) -> list[Suspect]:
    """The suspects with their proof."""
    return [replace(one, proof=proof) for one in suspects]


def _module(name: str) -> str:
    path, _, port = name.partition(":")
    return path.rpartition(".")[0] if port.startswith("parameter") else path


def _port(name: str) -> str:
    return name.partition(":")[2]
