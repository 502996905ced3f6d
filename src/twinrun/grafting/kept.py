"""Grafted values that a recomputed forward (activation checkpointing) will need once more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from twinrun.grafting.site import Site

MOST_CALLS = 16
"""Calls of the model whose values are kept while no backward pass has come for them."""


@dataclass
class _Call:
    """What was grafted in one call of the model; ``used`` once a recompute asked for it."""

    values: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    used: bool = False


class Kept:
    """Copies of what was grafted inside checkpointed parts, until their backward pass has gone by."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, int], _Call] = {}
        self._trains = True

    def begin(self) -> None:
        """A call of the model begins: what recomputes asked for before is not needed any more."""
        self._trains = torch.is_grad_enabled()
        for key in [key for key, held in self._calls.items() if held.used]:
            del self._calls[key]

    def keep(self, site: Site, value: Any) -> None:
        """Keep a copy of the tensor that was grafted here, if this forward will be run again."""
        if not isinstance(value, torch.Tensor) or not self._will_run_again():
            return
        held = self._calls.setdefault(_key(site), _Call())
        held.values.setdefault(site.name, []).append(value.detach().clone())
        if len(self._calls) > MOST_CALLS:
            del self._calls[next(iter(self._calls))]

    def again(self, site: Site) -> torch.Tensor | str:
        """A copy of what was grafted here in the first forward, or the reason why there is none."""
        if sum(site.name in call.values and not call.used for call in self._calls.values()) > 1:
            return "several calls of the model wait for their backward pass"
        held = self._calls.get(_key(site))
        values = held.values.get(site.name, []) if held is not None else []
        if held is not None:
            held.used = True
        if len(values) == 1:
            return values[0].clone()
        if values:
            return "it was grafted several times in that call, and nothing tells which is run again"
        return "nothing that was grafted there was kept"

    def _will_run_again(self) -> bool:
        """Whether this is checkpointed: torch's own hooks, or no graph inside a call that makes one."""
        if not torch.is_grad_enabled():
            return self._trains
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        return bool(hooks) and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


def _key(site: Site) -> tuple[int, int]:
    return (site.call, -1) if site.call >= 0 else (-1, site.step)
