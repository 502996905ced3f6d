"""From what a module is given and gives back to named tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch

# Deeper nesting than any model's arguments have; what lies below is told to `skipped`.
DEPTH = 8
_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)

Skipped = Callable[[str, Any], None]


def arguments(
    names: Sequence[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    skipped: Skipped | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors among a call's arguments as ``input.<name>``; positional ones named by ``names``.

    Beyond the named parameters (``*args``) a position is its name.
    """
    for position, value in enumerate(args):
        name = names[position] if position < len(names) else str(position)
        yield from flatten(value, f"input.{name}", skipped)
    for name, value in kwargs.items():
        yield from flatten(value, f"input.{name}", skipped)


def flatten(
    value: Any, port: str, skipped: Skipped | None = None, depth: int = DEPTH
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in ``value``, named from ``port``: ``output``, ``output.0``, ``output.logits``.

    Looks into tuples, lists, mappings, named tuples and dataclasses. ``skipped`` is told of objects
    that are none of these, and of what lies deeper than ``DEPTH`` levels.
    """
    if isinstance(value, torch.Tensor):
        yield port, value
        return
    if isinstance(value, _PLAIN):
        return
    parts = members(value)
    if parts is None or depth == 0:
        if skipped is not None and not callable(value):
            skipped(port, value)
        return
    for name, part in parts:
        yield from flatten(part, f"{port}.{name}", skipped, depth - 1)


def members(value: Any) -> Iterator[tuple[str, Any]] | None:
    """The named parts of a container; None for anything else."""
    if isinstance(value, Mapping):
        return iter([(str(name), part) for name, part in value.items()])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return zip(value._fields, value, strict=True)
    if isinstance(value, (tuple, list)):
        return ((str(place), part) for place, part in enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return ((row.name, getattr(value, row.name, None)) for row in fields(value))
    return None


def is_cache(value: Any) -> bool:
    """Whether this is a transformers ``Cache``, without importing transformers."""
    cache_utils = sys.modules.get("transformers.cache_utils")
    return cache_utils is not None and isinstance(value, getattr(cache_utils, "Cache", ()))
