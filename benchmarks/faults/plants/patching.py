"""How a fault gets into a model that is already built: new forwards, and names exchanged for a call."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import nn

Plant = Callable[[nn.Module, int], None]
"""Plants one fault: the whole model, and the layer that it goes into."""


def layer(model: nn.Module, number: int) -> Any:
    """One decoder layer."""
    return model.model.layers[number]


def source(module: nn.Module) -> ModuleType:
    """The Python module that holds the class of ``module``; its functions are looked up there."""
    return sys.modules[type(module).__module__]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor that may be spread."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


@contextlib.contextmanager
def exchanged(holder: Any, **replacements: Any) -> Iterator[None]:
    """Other attributes of ``holder`` for as long as the block lasts."""
    before = {name: getattr(holder, name) for name in replacements}
    for name, value in replacements.items():
        setattr(holder, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(holder, name, value)


def replace_forward(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Another forward, with the parameters' names of the one it replaces."""
    module.forward = functools.wraps(module.forward)(forward)


def forward_with(module: nn.Module, holder: Any, **replacements: Any) -> None:
    """From now on ``module`` computes with other functions in ``holder``; no other module does."""
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with exchanged(holder, **replacements):
            return original(*args, **kwargs)

    replace_forward(module, forward)
