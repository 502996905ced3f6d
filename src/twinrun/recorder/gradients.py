"""Gradients: of tapped tensors as the backward pass reaches them, of parameters when they are final."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakIdKeyDictionary

from twinrun.recorder.core import Recorder
from twinrun.recorder.parameters import Held, gradient_of, held_by
from twinrun.recorder.registry import Registry
from twinrun.recorder.roots import Root
from twinrun.recorder.scene import OpenCall

_KEY = "twinrun_followed"
_leaves: WeakIdKeyDictionary = WeakIdKeyDictionary()


class Gradients:
    """Reads the gradients of one capture.

    A parameter's gradient is read once for each run of backward passes: before an optimizer takes
    it (after clipping, unscaling and the data-parallel reduction), else at ``tr.step()``, else when
    the capture closes, the program lets the model go, or the process exits.
    """

    def __init__(self, recorder: Recorder, registry: Registry) -> None:
        self._recorder = recorder
        self._registry = registry
        self._read: dict[int, set[int]] = {}  # root with fresh gradients -> parameters read already
        self._kept: set[int] = set()
        self._handle: Any = None

    def follow(self, tensor: torch.Tensor, call: OpenCall, name: str | None) -> None:
        """Record the gradient of ``tensor`` as ``name:grad`` once it is computed.

        It is the total over every use of the tensor; the value that flows on is not touched.
        Without a name it only tells that a backward pass went through the root.
        """
        if not (tensor.requires_grad and torch.is_grad_enabled()):
            return
        if name is not None and not _first(tensor, name) and call.recompute:
            # A recompute that is given the very tensor that the first forward was given.
            return
        if self._handle is None:
            self._handle = register_optimizer_step_pre_hook(self._before_optimizer)

        def arrived(gradient: torch.Tensor) -> None:
            self._backward_through(call.entry.root)
            if name is not None:
                self._record(gradient, f"{name}:grad", call)

        tensor.register_hook(arrived)  # type: ignore[no-untyped-call]

    def finish(self) -> None:
        """Read what no optimizer took: at ``tr.step()``, when the capture closes, at exit."""
        for root in self._registry.roots:
            if root.index in self._read:
                self._read_root(root, None)
        self._read.clear()

    def close(self) -> None:
        """Finish for good."""
        self.finish()
        self.stop()

    def stop(self) -> None:
        """Leave optimizers and ends of steps alone from here on."""
        self._read.clear()
        if self._handle is not None:
            self._handle.remove()

    def _backward_through(self, root: Root) -> None:
        """A backward pass reaches a root; after a read this begins the next run of passes."""
        self._keep(root)
        if not self._read.get(root.index):
            self._read.setdefault(root.index, set())
        else:
            self._read[root.index] = set()

    def _keep(self, root: Root) -> None:
        """Hold a root's parameters for as long as the root itself lives, to read them when it goes."""
        model = root.ref()
        if model is None or root.index in self._kept:
            return
        self._kept.add(root.index)
        held = [held for held in held_by(model, root.label) if held.kind == "parameter"]
        weakref.finalize(model, self._gone, root, held).atexit = False

    def _gone(self, root: Root, held: list[Held]) -> None:
        if root.index in self._read:
            self._read_held(root, held, None)
            del self._read[root.index]

    def _before_optimizer(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        try:
            self._take(optimizer)
        except Exception as error:  # noqa: BLE001 - the optimizer must step whatever befalls its observer
            self._recorder.problem(f"parameter gradients were not read: {error!r}")

    def _take(self, optimizer: torch.optim.Optimizer) -> None:
        wanted = {id(p) for group in optimizer.param_groups for p in group["params"]}
        fresh = [root for root in self._registry.roots if root.index in self._read]
        holders = [root for root in fresh if not wanted.isdisjoint(_identities(root))]
        # An optimizer over copies of its own (masters in float32) names no parameter of a model.
        for root in holders or fresh:
            self._read_root(root, wanted if holders else None)

    def _read_root(self, root: Root, wanted: set[int] | None) -> None:
        """Record the gradients of a root's parameters that were not read since its last backward."""
        model = root.ref()
        if model is not None:
            self._read_held(root, held_by(model, root.label), wanted)

    def _read_held(self, root: Root, parameters: Iterable[Held], wanted: set[int] | None) -> None:
        read = self._read[root.index]
        for held in parameters:
            if held.kind != "parameter" or id(held.tensor) in read:
                continue
            if wanted is not None and id(held.tensor) not in wanted:
                continue
            gradient = gradient_of(held.tensor)
            if gradient is None:
                continue
            read.add(id(held.tensor))
            self._recorder.observe(
                f"{held.name}.grad",
                gradient,
                kind="gradient",
                role="parameter",
                module=held.module,
                module_class=held.module_class,
                root=root.index,
                call=root.call,
                mesh=root.mesh,
            )

    def _record(self, gradient: torch.Tensor, name: str, call: OpenCall) -> None:
        self._recorder.observe(
            name,
            gradient,
            kind="gradient",
            role="output",
            **call.facts,
        )


def _first(tensor: torch.Tensor, name: str) -> bool:
    """Whether this tensor is followed under this name for the first time."""
    node = tensor.grad_fn
    if node is None:
        names: set[tuple[int, str]] = _leaves.setdefault(tensor, set())  # type: ignore[no-untyped-call]
    else:
        metadata: dict[str, Any] = node.metadata  # type: ignore[assignment]
        names = metadata.setdefault(_KEY, set())
    if (tensor.output_nr, name) in names:
        return False
    names.add((tensor.output_nr, name))
    return True


def _identities(root: Root) -> set[int]:
    model = root.ref()
    return set() if model is None else {id(parameter) for parameter in model.parameters()}
