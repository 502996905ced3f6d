"""What an operator's schema says of it: what it writes, whether it only views, whether it draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch._ops import OpOverload

# Not tagged as views, or not only views, but nothing is computed either: values are moved.
_MOVES = frozenset(
    {"embedding", "index_select", "gather", "index", "clone", "contiguous", "cat", "stack", "flip",
     "roll", "repeat", "masked_select", "take_along_dim", "_reshape_copy", "repeat_interleave"}
)  # fmt: skip
# Views by their schema; what they are given was made by ``torch.tensor``, which no mode sees.
_MADE_OUTSIDE = frozenset({"lift", "lift_fresh"})

NOT_COMPUTING = frozenset({"device", "layout", "pin_memory", "memory_format"})
"""Arguments that say where and how a result lies, not what it is."""
LONGEST = 64


@dataclass(frozen=True, slots=True)
class OperatorFacts:
    """``writes`` are the names of arguments that it changes, ``names`` those of all, in order."""

    name: str
    overload: str
    space: str
    names: tuple[str, ...]
    writes: tuple[str, ...]
    is_view: bool
    moves: bool
    draws: bool
    is_composite: bool
    defaults: Mapping[str, Any]

    def bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """The arguments of a call by name."""
        yield from zip(self.names, args, strict=False)
        yield from kwargs.items()


@lru_cache(maxsize=4096)
def facts_of(func: OpOverload) -> OperatorFacts:
    """The facts of one operator, read once."""
    schema = func._schema
    space, _, name = schema.name.partition("::")
    aliases = [one.alias_info for one in schema.returns]
    writes = tuple(a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write)
    views = bool(aliases) and all(one is not None and not one.is_write for one in aliases)
    return OperatorFacts(
        name=name,
        overload=func._overloadname,
        space=space,
        names=tuple(a.name for a in schema.arguments),
        writes=writes,
        is_view=views and not writes and name not in _MADE_OUTSIDE,
        moves=name in _MOVES,
        draws=torch.Tag.nondeterministic_seeded in func.tags,
        is_composite=_is_composite(func),
        defaults=dict(_defaults(schema.arguments)),
    )


def higher_order_facts(func: Any, arguments: int) -> OperatorFacts:
    """What is known of an operator that takes functions (flex attention): its name."""
    names = tuple(f"argument {at}" for at in range(arguments))
    return OperatorFacts(
        name=str(getattr(func, "_name", func))[:200],
        overload="",
        space="higher_order",
        names=names,
        writes=(),
        is_view=False,
        moves=False,
        draws=False,
        is_composite=False,
        defaults={},
    )


def _is_composite(func: OpOverload) -> bool:
    """Whether it is made of other operators on every device, so that only those need be looked at.

    Under ``inference_mode`` a dispatch mode is asked before it is taken apart, otherwise after.
    """
    name = func._schema.name + (
        f".{func._schema.overload_name}" if func._schema.overload_name else ""
    )
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    if not has(name, "CompositeImplicitAutograd"):
        return False
    return not any(has(name, key) for key in ("CPU", "CUDA", "CompositeExplicitAutograd"))


def _defaults(arguments: Any) -> Iterator[tuple[str, Any]]:
    """The default values of scalar arguments, where they have any."""
    for one in arguments:
        if one.has_default_value() and one.name not in NOT_COMPUTING:
            plain = as_json(one.default_value)
            if plain is not None:
                yield one.name, plain


def as_json(value: Any) -> Any:
    """A scalar argument as JSON holds it; None for what says nothing (None itself, generators)."""
    if isinstance(value, (bool, int, str)):
        return value[:LONGEST] if isinstance(value, str) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value[:LONGEST]]
    return None


def parts(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in an argument or a result: alone, or in lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from parts(one)


def mapped(value: Any, change: Any) -> Any:
    """``value`` with ``change`` applied to every tensor and dtype in it."""
    if isinstance(value, (torch.Tensor, torch.dtype)):
        return change(value)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(mapped(one, change) for one in value)
    return value
