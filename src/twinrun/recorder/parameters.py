"""Parameters and buffers under their own names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from twinrun.recorder import naming
from twinrun.recorder.core import Recorder
from twinrun.recorder.roots import Root
from twinrun.recorder.taps import join


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor that a module holds: where, under which name, and as what."""

    module: str
    module_class: str
    name: str
    kind: str
    tensor: torch.Tensor


def held_by(model: nn.Module, label: str = "") -> Iterator[Held]:
    """Every parameter and buffer below a model, once each: a tied one under its first name."""
    seen: set[int] = set()
    for node, module in naming.walk(naming.core(model)):
        path = join(label, node.path)
        for kind, rows in (("parameter", module._parameters), ("buffer", module._buffers)):
            for name, tensor in rows.items():
                if tensor is None or id(tensor) in seen:
                    continue
                seen.add(id(tensor))
                yield Held(
                    path, naming.class_name(module), f"{join(path, name)}:{kind}", kind, tensor
                )


def record_parameters(recorder: Recorder, root: Root) -> None:
    """Record every parameter and buffer of a root, at the step that is about to begin."""
    model = root.ref()
    if model is None:
        return
    for held in held_by(model, root.label):
        if is_lazy(held.tensor):
            recorder.note(f"{held.name} has no value yet: a lazy module makes it in its first call")
            continue
        recorder.observe(
            held.name,
            held.tensor,
            kind=held.kind,
            role="parameter",
            module=held.module,
            module_class=held.module_class,
            root=root.index,
            call=root.call,
            mesh=root.mesh,
        )


def gradient_of(parameter: torch.Tensor) -> torch.Tensor | None:
    """A parameter's gradient: the framework's own accumulator (``main_grad``) where there is one."""
    main = getattr(parameter, "main_grad", None)
    return main if isinstance(main, torch.Tensor) else parameter.grad
