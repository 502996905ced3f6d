"""Copies of what a module is given and holds, so that a second run of it disturbs nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from twinrun.diagnosis.refusal import Refusal
from twinrun.recorder.flatten import DEPTH, members

Make = Callable[[torch.Tensor], torch.Tensor]
_ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, type)


class Copier:
    """Copies values with every tensor in them, wherever it lies: containers, caches, own objects.

    ``make`` gives the copy of one tensor. What is met twice is one copy, over all calls of ``copy``.
    Modules and what cannot be copied but need not be (process groups, meshes, streams) are themselves.
    """

    def __init__(self, make: Make) -> None:
        self._mode = _Tensors(make)
        self._memo: dict[int, Any] = {}
        self._alive: list[Any] = []

    def copy(self, value: Any, what: str) -> Any:
        """The copy; Refusal names ``what`` where an object in it cannot be copied."""
        if isinstance(value, _ATOMS):
            return value
        self._alive.append(value)  # its id is a key
        for held in _themselves(value):
            self._memo[id(held)] = held
        try:
            with self._mode:
                return copy.deepcopy(value, self._memo)
        except Refusal:
            raise
        except Exception as error:
            kind = type(value).__name__
            raise Refusal(f"{what}, a {kind}, cannot be copied: {_told(error)}") from error


class _Tensors(TorchFunctionMode):
    """Answers for ``Tensor.__deepcopy__``, which refuses tensors that have a graph."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self._make = make

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not torch.Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args[0], args[1]
        if id(tensor) not in memo:
            memo[id(tensor)] = self._make(tensor)
        return memo[id(tensor)]


def _themselves(value: Any, depth: int = DEPTH) -> Iterator[Any]:
    """Objects in plain containers that stand for something outside the call."""
    if isinstance(value, (nn.Module, nn.Parameter)) or _is_handle(value):
        yield value
    elif depth and not isinstance(value, (*_ATOMS, torch.Tensor)):
        for _, part in members(value) or ():
            yield from _themselves(part, depth - 1)


def _is_handle(value: Any) -> bool:
    kind = type(value)
    return kind.__module__.startswith(("torch.distributed.device_mesh", "torch.cuda")) or (
        kind.__name__
        in ("ProcessGroup", "DeviceMesh", "Event", "Stream", "Generator", "lock", "RLock")
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]
