"""Where a graft reaches into a program: module boundaries, dumps, parameters and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from twinrun.grafting.rebuild import rebuild
from twinrun.grafting.replace import check_overwritable, overwrite, value_for
from twinrun.grafting.session import Session
from twinrun.grafting.site import Site
from twinrun.recorder.aliases import read_aliases
from twinrun.recorder.core import Recorder
from twinrun.recorder.intercept import beginnings, interceptors
from twinrun.recorder.parameters import gradient_of, held_by
from twinrun.recorder.recompute import in_backward
from twinrun.recorder.roots import Root
from twinrun.recorder.scene import OpenCall
from twinrun.recorder.scope import current_tags

_PLAIN = frozenset({type(None), bool, int, float, str})


class Seam:
    """Puts what passes a program's boundaries through a session; ``install`` is undone by ``remove``."""

    def __init__(self, session: Session, recorder: Recorder) -> None:
        self.session = session
        self.recorder = recorder
        self._roots: dict[int, Root] = {}
        self._silent: set[tuple[str, str]] = set()
        self._by_layer = session.directions.by_layer
        self._quiet_outputs: set[str] = set()
        self._quiet_inputs: dict[str, tuple[list[bool], set[str]]] = {}
        self._optimizer: Any = None
        self._aliases = read_aliases(recorder.options.aliases)

    def install(self, *, boundaries: bool = True) -> None:
        """Begin to intercept; without ``boundaries`` only what the program dumps."""
        self.recorder.dump_interceptors.append(self.dump)
        if boundaries:
            interceptors.append(self.intercept)
            beginnings.append(self.begin)
            self._optimizer = register_optimizer_step_pre_hook(self._before_optimizer)

    def remove(self) -> None:
        """Leave the program alone again."""
        for held, mine in (
            (interceptors, self.intercept),
            (beginnings, self.begin),
            (self.recorder.dump_interceptors, self.dump),
        ):
            if mine in held:
                held.remove(mine)  # type: ignore[arg-type]
        if self._optimizer is not None:
            self._optimizer.remove()

    # --- module boundaries -----------------------------------------------------------------

    def begin(self, root: Root) -> None:
        """A call of a root begins; before a model's first one its parameters are grafted."""
        with self.session.guarding():
            self.session.begin(self.recorder.marks or root.call)
            if id(root) not in self._roots:
                self._roots[id(root)] = root
                self._parameters(root)

    def intercept(self, call: OpenCall, phase: str, tree: Any) -> Any:
        """The seam's interceptor: inputs are (positional, keyword), outputs any value."""
        module = call.entry.module
        if not (self._by_layer and self.session.directions.retagged):
            if phase == "output":
                if module in self._quiet_outputs and isinstance(tree, torch.Tensor):
                    return tree
            elif self._quiet(module, *tree):
                return tree
        with self.session.guarding():
            if phase == "output":
                return rebuild(
                    tree, "output", lambda port, value: self._value(call, port, value, "output")
                )
            return self._inputs(call, tree)
        return tree

    def _quiet(self, module: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether every input is known to be none that a filter takes; decided by dict look-ups only."""
        known = self._quiet_inputs.get(module)
        if known is None or len(args) > len(known[0]):
            return False
        for value, silent in zip(args, known[0], strict=False):
            if not (silent if isinstance(value, torch.Tensor) else value is None):
                return False
        for name, value in kwargs.items():
            if not (name in known[1] if isinstance(value, torch.Tensor) else type(value) in _PLAIN):
                return False
        return True

    def _learn(self, call: OpenCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """After a look at every input of a module: which of its arguments no filter takes."""
        module, names = call.entry.module, call.entry.arguments
        places = [names[at] if at < len(names) else str(at) for at in range(len(args))]
        silent = [(module, f"input.{name}") in self._silent for name in places]
        held = {name for name in kwargs if (module, f"input.{name}") in self._silent}
        before = self._quiet_inputs.get(module, ([], set()))
        self._quiet_inputs[module] = (
            silent if len(silent) >= len(before[0]) else before[0],
            held | before[1],
        )

    def _inputs(self, call: OpenCall, tree: Any) -> Any:
        args, kwargs = tree
        names = call.entry.arguments

        def visit(port: str, value: torch.Tensor) -> torch.Tensor:
            return self._value(call, port, value, "input")

        new_args = None
        for at, value in enumerate(args):
            name = names[at] if at < len(names) else str(at)
            new = rebuild(value, f"input.{name}", visit)
            if new is not value:
                new_args = list(args) if new_args is None else new_args
                new_args[at] = new
        self._learn(call, args, kwargs)
        changed = {}
        for name, value in kwargs.items():
            new = rebuild(value, f"input.{name}", visit)
            if new is not value:
                changed[name] = new
        return (
            args if new_args is None else tuple(new_args),
            {**kwargs, **changed} if changed else kwargs,
        )

    def _value(self, call: OpenCall, port: str, value: torch.Tensor, role: str) -> torch.Tensor:
        entry = call.entry
        key = (entry.module, port)
        directions = self.session.directions
        if key in self._silent and not directions.retagged:
            return value
        site = self._site(f"{entry.module}:{port}", role, call)
        gradient = replace(
            site, name=f"{site.name}:grad", kind="gradient", role="output", recompute=False
        )
        if key not in self._silent and not (
            directions.may_take(site) or directions.may_take(gradient)
        ):
            self._silent.add(key)
            if port == "output":
                self._quiet_outputs.add(entry.module)
            return value
        replaced, new = self.session.pass_through(site, value)
        if replaced:
            value = value_for(value, new, self.session.settings.gradient)
            call.tags = {**(call.tags or {}), port: {"grafted": self.session.direction(site) or ""}}
        if value.requires_grad and torch.is_grad_enabled() and self.session.asks(gradient):
            value.register_hook(lambda arrived: self._gradient(gradient, arrived, call))  # type: ignore[no-untyped-call]
        return value

    def _gradient(self, site: Site, value: torch.Tensor, call: OpenCall) -> torch.Tensor | None:
        with self.session.guarding():
            replaced, new = self.session.pass_through(site, value)
            if replaced and self.recorder.options.own_gradients:
                self._native(site, value, call)
            return new if replaced else None
        return None

    def _native(self, site: Site, value: torch.Tensor, call: OpenCall) -> None:
        """What would have arrived had nothing been put in its place."""
        self.recorder.observe(
            f"{site.name}.native",
            value,
            kind=site.kind,
            role="native",
            **call.facts,
        )

    def _site(self, name: str, role: str, call: OpenCall) -> Site:
        entry = call.entry
        return Site(
            self._aliases.get(name, name),
            self.recorder.marks or call.call,
            "activation",
            role,
            entry.module,
            entry.class_name,
            mesh=entry.root.mesh,
            tags=tuple(current_tags().items()),
            recompute=call.recompute,
            call=call.call,
        )

    # --- parameters and their gradients ----------------------------------------------------

    def _parameters(self, root: Root) -> None:
        model = root.ref()
        if model is None:
            return
        for held in held_by(model, root.label):
            site = self._held_site(held, root, held.name, held.kind)
            if self.session.asks(site):
                self._in_place(site, held.tensor)

    def _before_optimizer(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        with self.session.guarding():
            self._optimizer_gradients(optimizer)

    def _optimizer_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        for root in list(self._roots.values()):
            model = root.ref()
            if model is None:
                continue
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for held in held_by(model, root.label):
                if held.kind != "parameter" or id(held.tensor) not in own:
                    continue
                site = self._held_site(held, root, f"{held.name}.grad", "gradient")
                gradient = gradient_of(held.tensor) if self.session.asks(site) else None
                if gradient is not None:
                    self._in_place(site, gradient)

    def _held_site(self, held: Any, root: Root, name: str, kind: str) -> Site:
        step = self.recorder.marks or max(root.call, 0)
        return Site(name, step, kind, "parameter", held.module, held.module_class, mesh=root.mesh)

    def _in_place(self, site: Site, tensor: torch.Tensor) -> None:
        """Overwrite a tensor that no graph has been built on yet."""
        plain = tensor.detach()
        replaced, new = self.session.pass_through(site, plain)
        if replaced:
            overwrite(_local(plain), _local(new))

    # --- dumps -----------------------------------------------------------------------------

    def dump(
        self, name: str, tensor: object, dims: str | None, tags: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """``tr.dump`` of code that is annotated already: a matching tensor is overwritten in place."""
        direction = ""
        if isinstance(tensor, torch.Tensor):
            with self.session.guarding():
                direction = self._dumped(name, tensor, dims, tags)
        return {"grafted": direction} if direction else {}

    def _dumped(
        self, name: str, tensor: torch.Tensor, dims: str | None, tags: Mapping[str, Any]
    ) -> str:
        merged = {**current_tags(), **tags}
        site = Site(
            name,
            self.recorder.step,
            dims=dims or "",
            tags=tuple(merged.items()),
            recompute=in_backward(),
        )
        if not self.session.asks(site):
            return ""
        if self.session.receives(site):
            try:
                check_overwritable(tensor, name)
            except ValueError as error:
                self.session.fail(site, str(error))
                return ""
        replaced, new = self.session.pass_through(site, tensor)
        if not replaced:
            return ""
        overwrite(_local(tensor), _local(new))
        return self.session.direction(site) or ""


def _local(tensor: torch.Tensor) -> torch.Tensor:
    to_local = getattr(tensor, "to_local", None)
    local: torch.Tensor = tensor if to_local is None else to_local()
    return local
