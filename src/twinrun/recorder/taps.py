"""``--taps``: which modules of a model are observed, and which of their tensors.

A word (``blocks``, ``modules``, ``leaves``, ``none``), globs over module paths, or several with
commas. ``*`` also crosses dots. A glob may end in ``:output``, ``:input.hidden_states`` or a glob of
ports: ``*.mlp:output``; the path of the outermost module is empty, so ``:output`` is the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from twinrun.errors import UsageError

WORDS = ("blocks", "modules", "leaves", "none")
# A router makes a discrete choice, which rounding can tip: by its class, or by its name beside experts.
_ROUTER_CLASS = ("router", "topk")
_ROUTER_NAMES = ("gate", "router", "wg")


@dataclass(frozen=True, slots=True)
class Node:
    """One module as taps see it: its path under the root, and what it holds.

    ``repeated``: it is an element of a ModuleList, Sequential or ModuleDict and has children or
    parameters. ``container``: such a list itself, which is never called. ``class_name``: that of what
    a wrapper wraps.
    """

    path: str
    leaf: bool = False
    repeated: bool = False
    container: bool = False
    class_name: str = ""


@dataclass(frozen=True, slots=True)
class Ports:
    """Which tensors of a tapped module are wanted: globs over ``input.x``, ``output``, ..."""

    globs: tuple[str, ...]

    def __contains__(self, port: str) -> bool:
        globs = self.globs
        if "*" in globs:
            return True
        return any(fnmatchcase(port, g) or fnmatchcase(port, f"{g}.*") for g in globs)


EVERY_PORT = Ports(("*",))


@dataclass(frozen=True, slots=True)
class Taps:
    """The parsed choice; ``patterns`` holds its words and globs, one each."""

    text: str
    patterns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Taps:
        """Read the text; ``UsageError`` for an empty one, or ``none`` among others."""
        patterns = tuple(part.strip() for part in text.split(","))
        if not all(patterns):
            raise UsageError(
                f"taps {text!r} hold an empty name",
                expected=f"one of {', '.join(WORDS)}, or globs over module paths with commas",
            )
        if "none" in patterns and len(patterns) > 1:
            raise UsageError(f"taps {text!r} ask for nothing and something", do="leave out none")
        return cls(text, tuple(pattern for pattern in patterns if pattern != "none"))

    def select(self, nodes: Sequence[Node], prefix: str = "") -> dict[str, Ports]:
        """The wanted ports of each wanted path. ``prefix`` is what names begin with (a root's label).

        ``nodes``: every module below one root, the root first, parents before children.
        """
        wanted: dict[str, list[str]] = {}
        for pattern in self.patterns:
            for path, port in _matches(pattern, nodes, prefix):
                wanted.setdefault(path, []).append(port)
        return {path: Ports(tuple(globs)) for path, globs in wanted.items()}

    def unmatched(self, nodes: Sequence[Node], prefix: str = "") -> tuple[str, ...]:
        """The patterns that match no module of ``nodes``."""
        return tuple(p for p in self.patterns if not _matches(p, nodes, prefix))


def _matches(pattern: str, nodes: Sequence[Node], prefix: str) -> list[tuple[str, str]]:
    chosen = _CHOICES.get(pattern)
    if chosen is not None:
        return [(path, "*") for path in chosen(nodes)]
    glob, colon, port = pattern.rpartition(":")
    glob, port = (glob, port or "*") if colon else (pattern, "*")
    return [
        (node.path, port)
        for node in nodes
        if not node.container and fnmatchcase(join(prefix, node.path), glob)
    ]


def join(prefix: str, path: str) -> str:
    """A path below a prefix, either of which may be empty."""
    return f"{prefix}.{path}" if prefix and path else prefix or path


def parent(path: str) -> str:
    """The path one level up; a top-level name's parent is the root, ``""``."""
    return path.rpartition(".")[0]


def _modules(nodes: Sequence[Node]) -> list[str]:
    return [node.path for node in nodes if not node.container]


def _leaves(nodes: Sequence[Node]) -> list[str]:
    return [node.path for node in nodes if node.leaf and not node.container]


def _blocks(nodes: Sequence[Node]) -> list[str]:
    """The root, the repeated blocks, the direct children of blocks and of what holds them, and routers.

    A repeated module inside a block (an expert, a layer of an MLP) is a detail of that block. What a
    router chose is not: without it a choice that rounding tipped looks like a fault of its block.
    """
    blocks: set[str] = set()
    for node in nodes:
        if node.repeated and not any(above in blocks for above in _ancestors(node.path)):
            blocks.add(node.path)
    opened = {""} | blocks
    for block in blocks:
        opened.update(_ancestors(block))
    routers = _routers(nodes)
    return [
        node.path
        for node in nodes
        if not node.container
        and (node.path in opened or parent(node.path) in opened or node.path in routers)
    ]


def _routers(nodes: Sequence[Node]) -> set[str]:
    """Modules that choose: by class, or called gate, router or wg beside something called experts."""
    paths = {node.path for node in nodes}
    return {
        node.path
        for node in nodes
        if any(word in node.class_name.lower() for word in _ROUTER_CLASS)
        or (
            node.path.rpartition(".")[2] in _ROUTER_NAMES
            and join(parent(node.path), "experts") in paths
        )
    }


def _ancestors(path: str) -> list[str]:
    found = []
    while path:
        path = parent(path)
        found.append(path)
    return found


_CHOICES: Mapping[str, Callable[[Sequence[Node]], list[str]]] = {
    "blocks": _blocks,
    "modules": _modules,
    "leaves": _leaves,
}
