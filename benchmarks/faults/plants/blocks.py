"""Faults in norms, MLPs, routers, embeddings and in how a layer puts them together."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.faults.plants.patching import layer, replace_forward
from torch import nn


def norm_epsilon(model: nn.Module, number: int) -> None:
    """The norm divides without an epsilon."""
    norm = layer(model, number).input_layernorm
    setattr(norm, "eps" if hasattr(norm, "eps") else "variance_epsilon", 0.0)


def norm_epsilon_larger(model: nn.Module, number: int) -> None:
    """An epsilon of 1e-5 where the model has 1e-6."""
    norm = layer(model, number).input_layernorm
    setattr(norm, "eps" if hasattr(norm, "eps") else "variance_epsilon", 1e-5)


def norm_cast(model: nn.Module, number: int) -> None:
    """Llama's norm rounds before it is multiplied by its weight and Gemma's after: the other way."""
    norm = layer(model, number).input_layernorm
    gemma = hasattr(norm, "eps")
    epsilon = norm.eps if gemma else norm.variance_epsilon

    def forward(x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        if gemma:
            return wide.type_as(x) * (1.0 + norm.weight)
        return (wide * norm.weight.float()).type_as(x)

    replace_forward(norm, forward)


def norm_offset(model: nn.Module, number: int) -> None:
    """Gemma's norm multiplies by its weight, without the 1 that the checkpoint leaves out."""
    norm = layer(model, number).input_layernorm
    replace_forward(norm, lambda x: (norm._norm(x.float()) * norm.weight.float()).type_as(x))


def embedding_scale(model: nn.Module, number: int) -> None:
    """Gemma's embeddings are not multiplied by the square root of their width."""
    embedding = model.model.embed_tokens
    original, scale = embedding.forward, embedding.scalar_embed_scale
    replace_forward(embedding, lambda input_ids: original(input_ids) / scale)


def gelu_variant(model: nn.Module, number: int) -> None:
    """The exact GELU where the model was trained with the tanh approximation."""
    layer(model, number).mlp.act_fn = nn.GELU()


def activation_sign(model: nn.Module, number: int) -> None:
    """The gate's activation comes out with its sign turned."""
    activation = layer(model, number).mlp.act_fn
    original = activation.forward
    replace_forward(activation, lambda x: -original(x))


def swapped_gate_up(model: nn.Module, number: int) -> None:
    """The activation is taken of the up projection, not of the gate."""
    mlp = layer(model, number).mlp
    replace_forward(mlp, lambda x: mlp.down_proj(mlp.gate_proj(x) * mlp.act_fn(mlp.up_proj(x))))


def router_renormalisation(model: nn.Module, number: int) -> None:
    """The chosen experts' weights are not made to sum to one."""
    layer(model, number).mlp.gate.norm_topk_prob = False


def dropped_residual(model: nn.Module, number: int) -> None:
    """The layer forgets its input when it adds the attention's output."""
    block = layer(model, number)

    def forward(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        normed = block.input_layernorm(hidden_states)
        attended, _ = block.self_attn(hidden_states=normed, **kwargs)
        return attended + block.mlp(block.post_attention_layernorm(attended))

    replace_forward(block, forward)
