"""Everything that can be planted into a model: faults by name and layer, and rewrites that are right."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from benchmarks.faults.plants import (
    attention,
    backward,
    blocks,
    decoding,
    parallel,
    rewrites,
    weights,
)
from benchmarks.faults.plants.patching import Plant
from torch import nn


def _own_functions(module: Any) -> dict[str, Callable[..., Any]]:
    return {
        name: held
        for name, held in inspect.getmembers(module, inspect.isfunction)
        if held.__module__ == module.__name__ and not name.startswith("_")
    }


PLANTS: dict[str, Plant] = {
    name: held
    for module in (attention, blocks, parallel, weights, decoding, backward)
    for name, held in _own_functions(module).items()
}
REWRITES: dict[str, Callable[[nn.Module], None]] = {
    **_own_functions(rewrites),
    "sdpa": lambda model: None,
}


def plant(model: nn.Module, text: str) -> None:
    """Plant ``name@layer``, or several joined by ``+``; nothing where the text is empty."""
    for part in filter(None, text.split("+")):
        name, _, number = part.partition("@")
        PLANTS[name](model, int(number or 1))


def rewrite_before(name: str) -> dict[str, str]:
    """What must be known when the model is loaded."""
    return {"attn_implementation": "sdpa" if name == "sdpa" else "eager"}


def rewrite_built(model: nn.Module, name: str) -> None:
    """Rewrite a model that is built; nothing where ``name`` is empty."""
    if name:
        REWRITES[name](model)
