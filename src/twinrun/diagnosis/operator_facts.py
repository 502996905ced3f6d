"""What an operator's schema says of it: what it writes, whether it only views, whether it draws."""

from __future__ import annotations

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
        is_view=views and not writes,
        moves=name in _MOVES,
        draws=torch.Tag.nondeterministic_seeded in func.tags,
        is_composite=_is_composite(func),
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
