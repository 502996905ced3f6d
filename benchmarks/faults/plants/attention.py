"""Faults in what an attention module computes itself, and in the rotary embedding."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.faults.plants.patching import forward_with, layer, replace_forward, source
from torch import nn


def attention_scale(model: nn.Module, number: int) -> None:
    """Scores are multiplied by a tenth less than 1 / sqrt(head_dim)."""
    layer(model, number).self_attn.scaling *= 0.9


def attention_scale_everywhere(model: nn.Module, number: int) -> None:
    """The same in every layer, as a wrong line in the class makes it."""
    for at in range(len(model.model.layers)):
        attention_scale(model, at)


def rope_base(model: nn.Module, number: int) -> None:
    """Frequencies from a base of 500,000 where the model was made with 10,000."""
    buffer = model.model.rotary_emb.inv_freq
    exponents = torch.arange(len(buffer), dtype=torch.float32) / len(buffer)
    buffer.copy_(1.0 / 500_000.0**exponents)


def rope_layout(model: nn.Module, number: int) -> None:
    """Cosines and sines laid out for neighbouring pairs; the model rotates halves."""
    rotary = model.model.rotary_emb
    original = rotary.forward

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        halves = (part.chunk(2, dim=-1)[0] for part in original(x, position_ids))
        return tuple(half.repeat_interleave(2, dim=-1) for half in halves)

    replace_forward(rotary, forward)


def rope_halves(model: nn.Module, number: int) -> None:
    """Queries and keys are rotated as neighbouring pairs instead of as halves."""
    attention = layer(model, number).self_attn
    forward_with(attention, source(attention), rotate_half=_rotate_pairs)


def _rotate_pairs(x: torch.Tensor) -> torch.Tensor:
    return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)


def mask_off_by_one(model: nn.Module, number: int) -> None:
    """Every token sees one token of the future."""
    attention = layer(model, number).self_attn
    original = source(attention).eager_attention_forward

    def shifted(module: Any, q: Any, k: Any, v: Any, mask: Any, **kwargs: Any) -> Any:
        return original(module, q, k, v, _one_further(mask), **kwargs)

    forward_with(attention, source(attention), eager_attention_forward=shifted)


def mask_of_model(model: nn.Module, number: int) -> None:
    """The same, where the model makes the mask for all its layers."""
    modeling = source(model.model)
    original = modeling.create_causal_mask

    def shifted(*args: Any, **kwargs: Any) -> Any:
        return _one_further(original(*args, **kwargs))

    forward_with(model.model, modeling, create_causal_mask=shifted)


def _one_further(mask: torch.Tensor) -> torch.Tensor:
    return torch.cat((mask[..., :1], mask[..., :-1]), dim=-1)


def kv_groups(model: nn.Module, number: int) -> None:
    """Key and value heads are repeated as a whole, 0 1 2 3 0 1 2 3 instead of 0 0 1 1 2 2 3 3."""
    attention = layer(model, number).self_attn
    forward_with(
        attention, source(attention), repeat_kv=lambda states, times: states.repeat(1, times, 1, 1)
    )


def permuted_heads(model: nn.Module, number: int) -> None:
    """The heads reach the output projection one place further than they should."""
    attention = layer(model, number).self_attn
    original = source(attention).eager_attention_forward

    def rolled(*args: Any, **kwargs: Any) -> Any:
        output, weights = original(*args, **kwargs)
        return output.roll(1, dims=2), weights

    forward_with(attention, source(attention), eager_attention_forward=rolled)
