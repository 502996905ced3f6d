"""The modules of a run as a tree: what a capture's records tell of who was called inside whom."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from twinrun.comparison.view import View
from twinrun.recorder.record import Record


@dataclass
class Module:
    """One called module: its path (the main root's is empty), where it first was called, its children."""

    path: str
    module_class: str
    order: int
    parent: Module | None = None
    children: list[Module] = field(default_factory=list)

    @property
    def leaf(self) -> bool:
        """Whether no module was called inside it."""
        return not self.children

    def below(self) -> Iterator[Module]:
        """Every module inside it, outermost first."""
        for child in self.children:
            yield child
            yield from child.below()

    def above(self) -> Iterator[Module]:
        """Every module around it, the nearest first."""
        if self.parent is not None:
            yield self.parent
            yield from self.parent.above()

    @cached_property
    def repeats(self) -> int:
        """How many numbered blocks it holds: parts of the path of something below that are numbers."""
        depth = len(_parts(self.path))
        names = {tuple(_parts(one.path)[depth:]) for one in self.below()}
        return len({name[: _first_number(name) + 1] for name in names if _first_number(name) >= 0})


class Tree:
    """All modules of a run, by path and in the order in which they were first called."""

    def __init__(self, modules: dict[str, Module]) -> None:
        self._modules = modules

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)

    def get(self, path: str) -> Module | None:
        """The module of this path, if it was called."""
        return self._modules.get(path)

    def roots(self) -> list[Module]:
        """The outermost modules."""
        return [one for one in self if one.parent is None]


def tree_of(*views: View, but: Container[str] = frozenset()) -> Tree:
    """The modules that any of the captures recorded an input or an output of, outermost ones and others.

    Of the others those in ``but`` are left out, and are part of the module around them.

    A module lies inside the one of the longest path that its own begins with; containers that are never called
    (a ModuleList) are no modules here.
    """
    found: dict[str, Module] = {}
    for view in views:
        for record in sorted(boundary_records(view), key=lambda one: (one.step, one.begun)):
            if record.module not in found:
                if record.module in but and any(up in found for up in _prefixes(record.module)):
                    continue
                order = len(found)
                found[record.module] = Module(record.module, record.module_class, order)
    for path, module in found.items():
        module.parent = next((found[up] for up in _prefixes(path) if up in found), None)
        if module.parent is not None:
            module.parent.children.append(module)
    for module in found.values():
        module.children.sort(key=lambda one: one.order)
    return Tree(found)


def boundary_records(view: View) -> Iterator[Record]:
    """The inputs and outputs of modules in the forward pass."""
    return (r for r in view.records if r.role in ("input", "output") and r.kind == "activation")


def _prefixes(path: str) -> Iterator[str]:
    """The paths around this one, nearest first; the empty path is the main root."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _parts(path: str) -> list[str]:
    return path.split(".") if path else []


def _first_number(parts: tuple[str, ...]) -> int:
    return next((at for at, part in enumerate(parts) if part.isdecimal()), -1)
