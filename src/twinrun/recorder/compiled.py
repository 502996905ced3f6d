"""Modules that a compiler made: its graphs are modules too, and no part of the program's model."""

from __future__ import annotations

import sys
from pathlib import PurePath
from types import FrameType

import torch
from torch import nn

_COMPILERS = frozenset({"_dynamo", "_functorch", "_inductor"})
# Frames between a graph's call and the compiler's own: the boundary's and the graph's wrapper.
_DEPTH = 10


def made_by_compiler(module: nn.Module) -> bool:
    """Whether ``module`` is a graph that torch.compile runs; one that the program traced is not."""
    if not isinstance(module, torch.fx.GraphModule):
        return False
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            return False
        parts = PurePath(frame.f_code.co_filename).parts
        if "torch" in parts and _COMPILERS & set(parts):
            return True
        frame = frame.f_back
    return False
