"""A value with some of its tensors replaced: containers are copied only on the way to what changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import is_dataclass
from typing import Any

import torch

from twinrun.recorder.flatten import DEPTH, members

Visit = Callable[[str, torch.Tensor], torch.Tensor]


def rebuild(value: Any, port: str, visit: Visit, depth: int = DEPTH) -> Any:
    """``value`` with ``visit(port, tensor)`` in place of every tensor, named as taps name them.

    The very same object when nothing was replaced. Tuples, lists, mappings, named tuples and
    dataclasses are looked into, as the recorder does.
    """
    if isinstance(value, torch.Tensor):
        return visit(port, value)
    if value is None or isinstance(value, (str, int, float)) or depth == 0:
        return value
    parts = members(value)
    if parts is None:
        return value
    changed = {}
    for name, part in parts:
        new = rebuild(part, f"{port}.{name}", visit, depth - 1)
        if new is not part:
            changed[name] = new
    return _with(value, changed) if changed else value


def _with(value: Any, changed: Mapping[str, Any]) -> Any:
    named = getattr(value, "_replace", None)
    if isinstance(value, tuple) and named is not None:
        return named(**changed)
    if isinstance(value, (tuple, list)):
        return type(value)(changed.get(str(at), part) for at, part in enumerate(value))
    made = copy.copy(value)
    if isinstance(made, MutableMapping):
        for key in list(made):
            if str(key) in changed:
                made[key] = changed[str(key)]
        return made
    if is_dataclass(made):
        for name, part in changed.items():
            object.__setattr__(made, name, part)
        return made
    return type(value)({key: changed.get(str(key), part) for key, part in value.items()})
