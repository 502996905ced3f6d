"""What a module reads besides its arguments: buffers, tensors and caches among its attributes, random state."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from twinrun.diagnosis.copies import Copier
from twinrun.recorder.flatten import flatten, is_cache

# Not state that a forward pass reads: what the module is made of, and hooks.
_STRUCTURE = frozenset({"_parameters", "_modules", "_buffers"})


@dataclass(slots=True)
class Attributes:
    """The attributes of a module and of all below it, as they were when it was called.

    Tensors, caches and plain containers are copies; everything else is itself.
    """

    rows: list[tuple[nn.Module, dict[str, Any]]]

    @classmethod
    def of(cls, module: nn.Module, copier: Copier) -> Attributes:
        """Taken now; parameters are never copied."""
        return cls([(held, _attributes(held, copier)) for held in module.modules()])

    def through(self, copier: Copier) -> Attributes:
        """The same once more, with another copier's tensors."""
        return Attributes([(held, _copied(kept, copier)) for held, kept in self.rows])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """A block in which the modules have these attributes; they get their own back after it."""
        own = [(held, dict(vars(held))) for held, _ in self.rows]
        try:
            for held, kept in self.rows:
                _put(held, kept)
            yield
        finally:
            for held, kept in own:
                _put(held, kept)


def _put(module: nn.Module, attributes: dict[str, Any]) -> None:
    held = vars(module)
    for name in [name for name in held if name not in attributes]:
        del held[name]
    held.update(attributes)


def _attributes(module: nn.Module, copier: Copier) -> dict[str, Any]:
    kept = dict(vars(module))
    if kept["_buffers"]:
        kept["_buffers"] = dict(kept["_buffers"])
    return _copied(kept, copier)


def _copied(kept: dict[str, Any], copier: Copier) -> dict[str, Any]:
    made = dict(kept)
    if kept["_buffers"]:
        made["_buffers"] = copier.copy(kept["_buffers"], "its buffers")
    for name, value in kept.items():
        if name in _STRUCTURE:
            continue
        if _is_state(value):
            made[name] = copier.copy(value, f"its attribute {name}")
        elif type(value) in (list, dict, set) and not name.endswith("hooks"):
            # A forward pass may put tensors into it, or count in it.
            made[name] = copy(value)
    return made


def _is_state(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not isinstance(value, nn.Parameter)
    if isinstance(value, (list, dict, tuple)):
        return any(not isinstance(one, nn.Parameter) for _, one in flatten(value, ""))
    return is_cache(value)


class RandomState:
    """The states of every generator that a module is likely to draw from, as they are now.

    torch's on CPU and on CUDA devices in use, Python's, numpy's where it is loaded, and generators
    among ``values``.
    """

    def __init__(self, values: Any = ()) -> None:
        self._cpu = torch.get_rng_state()
        started = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._cuda = torch.cuda.get_rng_state_all() if started else []
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        self._numpy = numpy.random.get_state() if numpy is not None else None
        self._own = [(one, one.get_state()) for one in _generators(values)]

    def restore(self) -> None:
        """Put all of them back."""
        torch.set_rng_state(self._cpu)
        for device, state in enumerate(self._cuda):
            torch.cuda.set_rng_state(state, device)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        for one, state in self._own:
            one.set_state(state)


def _generators(value: Any, depth: int = 3) -> Iterator[torch.Generator]:
    if isinstance(value, torch.Generator):
        yield value
    elif isinstance(value, nn.Module):
        for held in value.modules():
            yield from (one for one in vars(held).values() if isinstance(one, torch.Generator))
    elif isinstance(value, (list, tuple, dict)) and depth:
        for part in value.values() if isinstance(value, dict) else value:
            yield from _generators(part, depth - 1)
