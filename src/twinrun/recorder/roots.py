"""The roots of a process - modules called by nobody's module - and what is known of each module below."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import nn

from twinrun.recorder import naming
from twinrun.recorder.taps import Node, Ports, Taps, join


@dataclass(slots=True, eq=False)
class Entry:
    """One module as the boundary meets it; made once, so that a call costs one look-up.

    ``module`` is its path with the root's label in front, ``ports`` the wanted ones (None: not
    tapped). A wrapper shares ``module`` with what it wraps. ``called``, ``fired`` (a tensor of it was
    recorded) and ``in_graph`` (one was met while a CUDA graph was captured) hold once they are true.
    """

    ref: weakref.ref[nn.Module]
    root: Root
    module: str
    class_name: str
    ports: Ports | None
    arguments: tuple[str, ...]
    reduction: int
    called: bool = False
    fired: bool = False
    in_graph: bool = False


@dataclass(slots=True, eq=False)
class Root:
    """An outermost module: its label, its index in the recorder, and every module below it.

    ``call`` counts its calls from 0; -1 before the first; ``told``: of which of them ``beginnings``
    were told last. ``mesh`` are the rank's coordinates where the model itself tells them.
    """

    ref: weakref.ref[nn.Module]
    label: str
    class_name: str
    index: int
    call: int = -1
    told: int = -1
    mesh: dict[str, tuple[int, int]] | None = None
    entries: dict[int, Entry] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def stands_for(self, module: nn.Module) -> bool:
        """Whether a call of ``module`` is a call of this root: itself, or a wrapper around it."""
        own = self.ref()
        return own is not None and (module is own or naming.core(module) is own)

    def entry(self, module: nn.Module) -> Entry | None:
        """What is known of this module; None for one that was not there when names were given."""
        entry = self.entries.get(id(module))
        return entry if entry is not None and entry.ref() is module else None

    def read(self, taps: Taps | None, watched: Iterable[tuple[nn.Module, Taps]]) -> None:
        """Name every module below the root as it now stands, and mark those that taps choose.

        ``watched`` are models with taps of their own, in force wherever they stand in this root.
        """
        module = self.ref()
        if module is None:
            return
        pairs = list(naming.walk(module))
        self.nodes = [node for node, _ in pairs]
        chosen = {} if taps is None else taps.select(self.nodes, self.label)
        paths = {id(held): node.path for node, held in pairs}
        for model, own in watched:
            base = paths.get(id(naming.core(model)))
            if base is not None:
                chosen = {**chosen, **_below(own, self.nodes, base)}
        for node, held in pairs:
            self._add(node, held, chosen.get(node.path))

    def alias(self, module: nn.Module) -> None:
        """Let the wrappers around the root stand for it."""
        own = self.ref()
        known = None if own is None else self.entry(own)
        wrapper: nn.Module | None = module
        while known is not None and wrapper is not None and wrapper is not own:
            self._add(Node(""), wrapper, known.ports)
            wrapper = naming.inner(wrapper)

    def adopt(self, module: nn.Module, path: str, taps: Taps | None) -> None:
        """Name a module that is called inside the root without being registered below it."""
        pairs = list(naming.walk(module, path))
        nodes = [node for node, _ in pairs]
        chosen = {} if taps is None else taps.select([Node(""), *nodes], self.label)
        for node, held in pairs:
            self._add(node, held, chosen.get(node.path))

    def _add(self, node: Node, module: nn.Module, ports: Ports | None) -> None:
        known = self.entry(module)
        if known is not None:
            known.ports = ports
            known.module = join(self.label, node.path)
            return
        entries = self.entries
        key = id(module)

        def forget(gone: weakref.ref[nn.Module]) -> None:
            held = entries.get(key)
            if held is not None and held.ref is gone:
                del entries[key]

        entries[key] = Entry(
            ref=weakref.ref(module, forget),
            root=self,
            module=join(self.label, node.path),
            class_name=naming.class_name(module),
            ports=ports,
            arguments=naming.argument_names(module),
            reduction=naming.reduction_length(naming.core(module)),
        )


def _below(taps: Taps, nodes: Iterable[Node], base: str) -> dict[str, Ports]:
    """What ``taps`` choose among the nodes at and below ``base``, by full path."""
    start = len(base) + 1 if base else 0
    below = [
        replace(node, path=node.path[start:])
        for node in nodes
        if node.path == base or not base or node.path.startswith(f"{base}.")
    ]
    return {join(base, path): ports for path, ports in taps.select(below).items()}
