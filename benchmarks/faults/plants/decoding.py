"""Faults that show only once there is a KV cache with something in it."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.faults.plants.patching import layer, replace_forward
from torch import nn


def position_off_by_one(model: nn.Module, number: int) -> None:
    """After the prefill, new tokens are given the position behind their own."""
    inner = model.model
    original = inner.forward

    def forward(input_ids: torch.Tensor, **kwargs: Any) -> Any:
        cache = kwargs.get("past_key_values")
        seen = cache.get_seq_length() if cache is not None else 0
        if seen:
            positions = torch.arange(seen, seen + input_ids.shape[1])
            kwargs["position_ids"] = positions[None] + 1
        return original(input_ids=input_ids, **kwargs)

    replace_forward(inner, forward)


def cache_slot_off_by_one(model: nn.Module, number: int) -> None:
    """New keys and values overwrite the last token's slot, and their own stays empty."""
    attention = layer(model, number).self_attn
    original = attention.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length(attention.layer_idx):
            kwargs["past_key_values"] = _OneBefore(cache)
        return original(*args, **kwargs)

    replace_forward(attention, forward)


class _OneBefore:
    """A cache whose newest entry is written one slot before where it belongs."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update(self, key: torch.Tensor, value: torch.Tensor, number: int, *more: Any) -> Any:
        held = self._cache.update(key, value, number, *more)
        for states in held:
            states[..., -2, :] = states[..., -1, :]
            states[..., -1, :] = 0.0
        return held
