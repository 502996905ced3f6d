"""Faults of the backward pass alone: the loss is the same to the last bit."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.faults.plants.patching import layer, local, replace_forward
from torch import nn


def bias_gradient_halved(model: nn.Module, number: int) -> None:
    """The gradient of the output projection's bias is divided by two."""
    layer(model, number).self_attn.o_proj.bias.register_hook(lambda gradient: gradient * 0.5)


def norm_gradient_unreduced(model: nn.Module, number: int) -> None:
    """Each rank's query norm sees its own heads, and the gradients of its weight are not summed."""
    norm = layer(model, number).self_attn.q_norm
    replace_forward(norm, lambda x: type(norm).forward(norm, x))


def input_gradient_unreduced(model: nn.Module, number: int) -> None:
    """A projection split by columns gives back each rank's part of its input's gradient unsummed."""
    projection = layer(model, number).self_attn.q_proj

    def forward(x: torch.Tensor) -> torch.Tensor:
        bias = None if projection.bias is None else local(projection.bias)
        return nn.functional.linear(x, local(projection.weight), bias)

    replace_forward(projection, forward)


def activation_gradient_halved(model: nn.Module, number: int) -> None:
    """The activation's own backward returns half of the gradient."""
    activation = layer(model, number).mlp.act_fn
    original = activation.forward
    replace_forward(activation, lambda x: original(_HalvedBackward.apply(x)))


class _HalvedBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 0.5
