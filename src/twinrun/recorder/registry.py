"""The roots of one capture in one process: found, labelled and opened as modules are called."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from torch import nn

from twinrun.recorder import naming
from twinrun.recorder.compiled import made_by_compiler
from twinrun.recorder.core import Recorder
from twinrun.recorder.forwarded import host_of
from twinrun.recorder.meshes import mesh_of
from twinrun.recorder.roots import Entry, Root
from twinrun.recorder.taps import Taps, join
from twinrun.recorder.watched import watched_models

# A class whose modules were looked for in vain this often is made anew at each call.
_VAIN_LOOKS = 8


class Registry:
    """Finds the entry of any module that is called.

    The first root that holds weights has the empty label; another one is called by its class,
    ``Class``, then ``Class#2``. A root that has gone leaves its label to the next of its class, so
    that a loss made anew at each step keeps one name.
    """

    def __init__(
        self,
        recorder: Recorder,
        taps: Taps | None,
        on_forward: Callable[[nn.Module], None],
        on_read: Callable[[nn.Module], None],
    ) -> None:
        self.roots: list[Root] = []
        self._recorder = recorder
        self.taps = taps
        self._on_forward = on_forward
        self._on_read = on_read
        self._home: dict[int, Root] = {}
        self._vain: dict[tuple[int, type], int] = {}
        self._lock = threading.RLock()

    def outermost(self, module: nn.Module) -> Entry | None:
        """The entry of a module that is called while no other one is."""
        entry = self._known(module)
        if entry is not None or not self._concerns(module) or made_by_compiler(module):
            return entry
        with self._lock:
            entry = self._known(module)
            if entry is not None:
                return entry
            host = host_of(module)
            if host is None:
                return self.open(module).entry(module)
            root = self.open(host)
            self._recorder.note(
                f"{root.class_name} is called through .forward(): what it was given and gave back "
                "in its first call was not seen, from its second call on it is"
            )
            self._on_forward(host)
            return root.entry(module)

    def inside(self, module: nn.Module, above: Entry) -> Entry | None:
        """The entry of a module that ``above`` calls without having held it when names were given."""
        root = above.root
        if made_by_compiler(module):
            return None
        with self._lock:
            kind = (root.index, type(module))
            if self._vain.get(kind, 0) < _VAIN_LOOKS:
                self._read(root)
                found = root.entry(module)
                if found is not None:
                    return found
                self._vain[kind] = self._vain.get(kind, 0) + 1
            start = f"{root.label}." if root.label else ""
            path = join(above.module.removeprefix(start), naming.class_name(module))
            if above.module == root.label:
                path = naming.class_name(module)
            root.adopt(module, path, self.taps)
            return root.entry(module)

    def open(self, module: nn.Module) -> Root:
        """The root that stands for this module (a wrapper stands for what it wraps)."""
        stands_for = naming.core(module)
        same = (root for root in self.roots if root.ref() is stands_for)
        root = next(same, None) or self._successor(stands_for) or self._new(stands_for)
        self._read(root)
        root.alias(module)
        self._settle(root)
        return root

    def reread(self) -> None:
        """Choose taps again in every root, after what is watched has changed."""
        with self._lock:
            for root in self.roots:
                self._read(root)

    def _known(self, module: nn.Module) -> Entry | None:
        root = self._home.get(id(module))
        return None if root is None else root.entry(module)

    def _concerns(self, module: nn.Module) -> bool:
        """Without taps of its own a capture opens only the roots that hold a watched model."""
        if self.taps is not None:
            return True
        held = {id(child) for child in module.modules()}
        return any(id(naming.core(model)) in held for model, _ in watched_models())

    def _successor(self, module: nn.Module) -> Root | None:
        name = naming.class_name(module)
        for root in self.roots:
            if root.ref() is None and root.class_name == name:
                root.ref = weakref.ref(module)
                root.entries.clear()
                return root
        return None

    def _new(self, module: nn.Module) -> Root:
        name = naming.class_name(module)
        is_model = naming.may_be_model(module)
        label = "" if is_model and not any(r.label == "" for r in self.roots) else self._label(name)
        index = self._recorder.add_root(label, name)
        root = Root(weakref.ref(module), label, name, index)
        self.roots.append(root)
        return root

    def _label(self, name: str) -> str:
        count = sum(root.class_name == name and root.label != "" for root in self.roots)
        return name if count == 0 else f"{name}#{count + 1}"

    def _read(self, root: Root) -> None:
        module = root.ref()
        if module is None:
            return
        self._on_read(module)
        root.read(self.taps, watched_models())
        root.mesh = mesh_of(module)
        self._settle(root)

    def _settle(self, root: Root) -> None:
        """Let modules that no other living root names be found in this one."""
        for key in root.entries:
            held = self._home.get(key)
            if held is None or key not in held.entries:
                self._home[key] = root
