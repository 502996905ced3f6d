"""A root whose ``.forward()`` is called directly, past the boundary: found from the caller's frames."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

from torch import nn


def host_of(module: nn.Module) -> nn.Module | None:
    """The outermost module whose ``forward`` is running and that holds ``module``; or None."""
    host = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_forward(frame.f_code):
            candidate = frame.f_locals.get("self")
            if candidate is not module and _holds(candidate, module):
                host = candidate
        frame = frame.f_back
    return host


def _is_forward(code: CodeType) -> bool:
    """Only these frames' locals are looked at: reading a frame's locals keeps them alive longer."""
    return code.co_name == "forward" and code.co_argcount > 0 and code.co_varnames[0] == "self"


def _holds(candidate: object, module: nn.Module) -> bool:
    return isinstance(candidate, nn.Module) and any(held is module for held in candidate.modules())
