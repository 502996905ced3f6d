"""Which modules are isolated in one pass: never one inside another."""

from __future__ import annotations

from collections.abc import Iterable

from twinrun.diagnosis.tree import Module, Tree


def frontier(tree: Tree) -> list[Module]:
    """The blocks of every outermost module, and what stands beside them, in execution order.

    A module that holds several numbered blocks is opened; everything else is taken whole.
    """
    found = [one for root in tree.roots() for one in _opened(root)]
    return sorted(found, key=lambda one: one.order)


def _opened(module: Module) -> Iterable[Module]:
    outermost = module.parent is None and module.children
    if module.repeats < 2 and not outermost:
        return [module]
    return [one for child in module.children for one in _opened(child)]


def inside(blocks: Iterable[Module]) -> set[str]:
    """The paths of these modules and of everything below them."""
    return {one.path for block in blocks for one in (block, *block.below())}
