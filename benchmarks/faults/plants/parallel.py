"""Faults that need more than one tensor-parallel rank."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from benchmarks.faults.plants.patching import forward_with, layer, local, replace_forward
from torch import nn


def missing_all_reduce(model: nn.Module, number: int) -> None:
    """The attention's output projection, split by rows, is not summed over the ranks."""
    _without_all_reduce(layer(model, number).self_attn.o_proj)


def missing_all_reduce_mlp(model: nn.Module, number: int) -> None:
    """The MLP's down projection, or the experts, are not summed over the ranks."""
    mlp = layer(model, number).mlp
    _without_all_reduce(mlp.experts if hasattr(mlp, "experts") else mlp.down_proj)


def _without_all_reduce(module: nn.Module) -> None:
    def nothing(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        return None

    forward_with(module, dist, all_reduce=nothing)


def doubled_bias(model: nn.Module, number: int) -> None:
    """Every rank adds the output projection's bias to its part, and then the parts are summed."""
    projection = layer(model, number).self_attn.o_proj
    weight, bias = local(projection.weight), local(projection.bias)

    def forward(x: torch.Tensor) -> torch.Tensor:
        part = nn.functional.linear(x, weight, bias)
        dist.all_reduce(part)
        return part

    replace_forward(projection, forward)


def wrong_shard(model: nn.Module, number: int) -> None:
    """The last rank was given the first rank's rows of the value projection."""
    weight = layer(model, number).self_attn.v_proj.weight
    first = weight.full_tensor().chunk(dist.get_world_size(), dim=0)[0]
    if dist.get_rank() == dist.get_world_size() - 1:
        with torch.no_grad():
            local(weight).copy_(first)
