"""Wrong weights: what a converted checkpoint gets wrong while every line of code is right."""

from __future__ import annotations

import torch
from benchmarks.faults.plants.patching import layer, local
from torch import nn


@torch.no_grad()
def weight_element(model: nn.Module, number: int) -> None:
    """One element of the output projection is off by a half."""
    local(layer(model, number).self_attn.o_proj.weight)[2, 3] += 0.5


@torch.no_grad()
def weight_row(model: nn.Module, number: int) -> None:
    """One row of the key projection holds the next one's values."""
    weight = local(layer(model, number).self_attn.k_proj.weight)
    weight[3] = weight[4]


@torch.no_grad()
def exchanged_experts(model: nn.Module, number: int) -> None:
    """The down projections of two experts stand in each other's place."""
    weight = local(layer(model, number).mlp.experts.down_proj)
    weight[[1, 2]] = weight[[2, 1]].clone()
