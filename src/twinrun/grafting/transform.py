"""A user's function between the two runs: what it is given, how it is found, what it may return."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

import torch

from twinrun.errors import UsageError
from twinrun.grafting.settings import split_transform

Function = Callable[["GraftContext"], Any]


@dataclass(frozen=True)
class SenderLayout:
    """How one sender held its value: dims text ("" unknown), mesh coordinates, shape, dtype."""

    rank: int
    dims: str
    mesh: Mapping[str, tuple[int, int]]
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class GraftContext:
    """What a transform is called with.

    ``received``: each sender's whole value in the order of ``layouts`` (sender-rank order): tensors on
    the target's device, other values as they were sent; shapes may differ. ``extras``: what each
    sender's ``tr.graft(..., extras=...)`` gave. ``target``: a copy of this rank's own value.
    ``direction`` is b2t or t2b; ``rank`` is this rank's. The transform returns the value to use: a
    tensor of the target's shape, or any value where the target is no tensor.
    """

    name: str
    step: int
    occurrence: int
    tags: Mapping[str, Any]
    direction: str
    received: list[Any]
    layouts: tuple[SenderLayout, ...]
    extras: list[Any]
    target: Any
    rank: int
    baseline_ranks: int
    target_ranks: int


class TransformFailed(Exception):
    """A transform raised, or returned what cannot be used; carries the traceback's text."""

    def __init__(self, summary: str, trace: str = "") -> None:
        super().__init__(summary)
        self.trace = trace


class Transforms:
    """The transforms of one run, found when it starts; the first glob that matches a name wins."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._rows = [(glob, path, _find(path)) for glob, path in map(split_transform, texts)]

    def of(self, name: str) -> tuple[str, Function] | None:
        """(dotted path, function) for a name, or None."""
        for glob, path, function in self._rows:
            if fnmatchcase(name, glob):
                return path, function
        return None


def apply(path: str, function: Function, context: GraftContext, local: Any) -> Any:
    """What ``function`` returns, checked against ``local``; TransformFailed for anything wrong.

    A tensor comes back on ``local``'s device, in its dtype, contiguous, not shared with ``received``.
    """
    try:
        value = function(context)
    except Exception as error:  # noqa: BLE001 - the user's code is contained, told and counted
        raise TransformFailed(
            f"{path} raised {type(error).__name__}: {error}", traceback.format_exc()
        ) from None
    if not isinstance(local, torch.Tensor):
        return value
    if not isinstance(value, torch.Tensor):
        raise TransformFailed(f"{path} returned {type(value).__name__}, not a tensor")
    if value.shape != local.shape:
        raise TransformFailed(
            f"{path} returned shape {list(value.shape)}, but the tensor here has {list(local.shape)}"
        )
    try:
        return value.detach().to(device=local.device, dtype=local.dtype).contiguous()
    except RuntimeError as error:
        raise TransformFailed(f"{path} returned a tensor that cannot be used: {error}") from None


def _find(path: str) -> Function:
    module, _, name = path.rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"--transform {path} cannot be loaded: {error}",
            expected="pkg.module.function that the program itself could import",
            do="check PYTHONPATH in the command's environment",
        ) from None
    if not callable(function):
        raise UsageError(f"--transform {path} is a {type(function).__name__}, not a function")
    found: Function = function
    return found
