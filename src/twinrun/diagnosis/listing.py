"""What one call of a module executed: its operators in order, as JSON and as records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from twinrun.diagnosis.operator_facts import NOT_COMPUTING, OperatorFacts, as_json, parts
from twinrun.diagnosis.origins import OUTSIDE, Origins
from twinrun.recorder.payload import unseen

MOST = 4096
"""Operators of one call; what comes later is counted only."""
# The very same values, some of them taken by autograd for its own use.
_SAME = frozenset({"detach", "alias"})
# What these give is ready only when it was waited for.
_UNREADY = frozenset({"c10d", "_c10d_functional", "c10d_functional", "_c10d_functional_autograd"})

Keep = Callable[[str, torch.Tensor, int], None]


class Listing:
    """The operators of one call. ``keep(name, tensor, index)`` is told of each result's values.

    A name is ``softmax.0``: the operator's, its how-manieth in this call, and ``.1`` and so on where it
    gives several tensors.
    """

    def __init__(self, origins: Origins, keep: Keep) -> None:
        self.origins = origins
        self.rows: list[dict[str, Any]] = []
        self.cut = 0
        self._keep = keep
        self._count: dict[str, int] = {}

    def add(self, facts: OperatorFacts, row: dict[str, Any], out: Any) -> None:
        """An operator was executed; ``row`` is what ``described`` gave before it was."""
        if facts.name in _SAME:
            for tensor in parts(out):
                self.origins.add(tensor, row["in"][0]["from"], fresh=False)
            return
        if len(self.rows) >= MOST:
            self.cut += 1
            return
        index, times = len(self.rows), self._count.get(facts.name, 0)
        self._count[facts.name] = times + 1
        results = list(parts(out))
        row |= {"k": times, "out": [_told(one) for one in results]}
        self.rows.append(row)
        for at, tensor in enumerate(results):
            suffix = "" if len(results) == 1 else f".{at}"
            self.origins.add(tensor, f"op:{index}{suffix}", fresh=not facts.is_view)
            unready = facts.space in _UNREADY and facts.name != "wait_tensor"
            if not facts.is_view and not unready:
                self._keep(f"{facts.name}.{times}{suffix}", tensor, index)

    def described(
        self, facts: OperatorFacts, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """The operator with its arguments, as they are before it runs."""
        tensors: list[dict[str, Any]] = []
        scalars = dict(facts.defaults)
        for name, value in facts.bound(args, kwargs):
            scalars.pop(name, None)
            found = list(parts(value))
            if found:
                tensors += [self._input(name, one) for one in found]
            elif name not in NOT_COMPUTING and (plain := as_json(value)) is not None:
                scalars[name] = plain
        row: dict[str, Any] = {
            "op": facts.name,
            "overload": facts.overload,
            "in": tensors,
            "args": scalars,
        }
        if facts.is_view:
            row["view"] = True
        if facts.writes:
            row["writes"] = list(facts.writes)
        return row

    def _input(self, name: str, tensor: torch.Tensor) -> dict[str, Any]:
        origin = self.origins.of(tensor)
        row = {"arg": name, "from": origin, **_told(tensor)}
        if origin == OUTSIDE and (number := _constant(tensor)) is not None:
            row["value"] = number
        return row


def _told(tensor: torch.Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _constant(tensor: torch.Tensor) -> Any:
    """The value of a single number in CPU memory: a scale, an epsilon that was made a tensor."""
    if type(tensor) is not torch.Tensor or not tensor.is_cpu or tensor.numel() != 1:
        return None
    with unseen():
        return as_json(tensor.item())


def children_between(path: str, module: str) -> str:
    """``path`` as ``module`` would name it."""
    return path[len(module) + 1 :] if module and path.startswith(f"{module}.") else path
