"""Names of modules: paths from the outermost module that is called, wrappers left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from twinrun.recorder.taps import Node, join

# Where a wrapper of this class name keeps the module that it stands for.
_WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "OptimizedModule": "_orig_mod",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "OffloadWrapper": "_checkpoint_wrapped_module",
    "DeepSpeedEngine": "module",
    "PipelineEngine": "module",
    "Float16Module": "module",
}
# Prefixes of classes that are made at run time from the class of the module they replace.
_MADE_FROM = ("FSDP", "DDP", "Replicate", "Parametrized")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)


def inner(module: nn.Module) -> nn.Module | None:
    """The module that this wrapper stands for; None where it is no wrapper."""
    attribute = _WRAPPERS.get(type(module).__name__)
    if attribute is None:
        return None
    held = module._modules.get(attribute)
    if held is None and attribute == "_orig_mod":
        held = module.__dict__.get(attribute)
    return held


def core(module: nn.Module) -> nn.Module:
    """The module inside all of its wrappers."""
    while (held := inner(module)) is not None:
        module = held
    return module


def class_name(module: nn.Module) -> str:
    """The name of a module's class as its author wrote it."""
    kind = type(core(module))
    for base in kind.__bases__:
        if any(kind.__name__ == prefix + base.__name__ for prefix in _MADE_FROM):
            return base.__name__
    return kind.__name__


def walk(
    module: nn.Module, path: str = "", seen: set[int] | None = None
) -> Iterator[tuple[Node, nn.Module]]:
    """Every module below ``module`` with its node, parents first; a shared one under its first path.

    A wrapper and the module in it come one after the other under one path.
    """
    yield from _walk(module, path, False, set() if seen is None else seen)


def _walk(
    module: nn.Module, path: str, listed: bool, seen: set[int]
) -> Iterator[tuple[Node, nn.Module]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    held = inner(module)
    children = {name: child for name, child in module._modules.items() if child is not None}
    stands_for = core(module)
    leaf = not any(child is not None for child in stands_for._modules.values())
    filled = not leaf or bool(stands_for._parameters)
    container = isinstance(stands_for, _CONTAINERS)
    yield Node(path, leaf, listed and filled, container, class_name(module)), module
    if held is not None:
        yield from _walk(held, path, listed, seen)
        children = {name: child for name, child in children.items() if child is not held}
    holds = isinstance(module, (*_CONTAINERS, nn.Sequential))
    for name, child in children.items():
        yield from _walk(child, join(path, name), holds, seen)


def argument_names(module: nn.Module) -> tuple[str, ...]:
    """The names of ``forward``'s positional parameters, up to a ``*args``."""
    stands_for = core(module)
    own = _positional(stands_for.forward) if "forward" in stands_for.__dict__ else ()
    # A forward that was put in its place (transformers' tensor parallelism) may take *args only.
    kind: type = type(stands_for)
    return own or _of_class(kind)


@lru_cache(maxsize=4096)
def _of_class(kind: type) -> tuple[str, ...]:
    return _positional(kind.forward)[1:]  # type: ignore[attr-defined]


def _positional(forward: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = signature(forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    taken = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(row.name for row in parameters if row.kind in taken)


def may_be_model(module: nn.Module) -> bool:
    """Whether a root may take the empty label: it holds weights, and is no loss function."""
    if isinstance(module, nn.modules.loss._Loss):
        return False
    if next(module.parameters(), None) is not None:
        return True
    has_children = any(child is not None for child in module._modules.values())
    return has_children and next(module.buffers(), None) is not None


def reduction_length(module: nn.Module) -> int:
    """The length of the sum behind each output element, from the module's own weight; else 0."""
    weight = module._parameters.get("weight")
    if not isinstance(weight, torch.Tensor) or is_lazy(weight):
        return 0
    if isinstance(module, nn.Embedding):
        return 0
    shape = tuple(weight.shape)  # a DTensor's shape is the whole weight's, as it should be
    if len(shape) == 1 or type(module).__name__ == "Conv1D":  # transformers' holds [in, out]
        return shape[0]
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        shape = (shape[1], shape[0] // module.groups, *shape[2:])
    length = 1
    for size in shape[1:]:
        length *= size
    return length
