"""Changes that are right: the same numbers by another way, which nobody should be blamed for."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from benchmarks.faults.plants.patching import local, replace_forward
from torch import nn


def reversed_experts(model: nn.Module) -> None:
    """The experts of every layer are gone through from the last to the first, and added up so."""

    def forward(
        self: Any, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        total = torch.zeros_like(hidden)
        for expert in reversed(range(self.num_experts)):
            token, place = torch.where(index == expert)
            gate, up = nn.functional.linear(hidden[token], self.gate_up_proj[expert]).chunk(2, -1)
            made = nn.functional.linear(self.act_fn(gate) * up, self.down_proj[expert])
            total.index_add_(0, token, made * weights[token, place, None])
        return total

    # Tensor parallelism keeps the bound forward and asks this table when it is called.
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register("reversed", forward)
    model.config._experts_implementation = "reversed"


def batched_experts(model: nn.Module) -> None:
    """All experts' products in one batched multiplication."""
    model.config._experts_implementation = "batched_mm"


def fused_qkv(model: nn.Module) -> None:
    """Queries, keys and values come out of one multiplication by the three weights stacked."""
    for block in model.model.layers:
        _fuse(block.self_attn)


def _fuse(attention: Any) -> None:
    parts = [getattr(attention, f"{which}_proj") for which in "qkv"]
    original = attention.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        weight = torch.cat([local(part.weight) for part in parts])
        bias = None if parts[0].bias is None else torch.cat([local(part.bias) for part in parts])
        widths = [len(local(part.weight)) for part in parts]
        made = iter(nn.functional.linear(hidden, weight, bias).split(widths, dim=-1))
        names = [f"{which}_proj" for which in "qkv"]
        try:
            for name in names:  # what stands in the instance hides the registered module
                object.__setattr__(attention, name, partial(_ready, next(made)))
            return original(*args, **kwargs)
        finally:
            for name in names:
                object.__delattr__(attention, name)

    replace_forward(attention, forward)


def _ready(made: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return made


def chunked_mlp(model: nn.Module) -> None:
    """Each MLP goes through its tokens in two halves."""
    for block in model.model.layers:
        _chunk(block.mlp)


def _chunk(mlp: nn.Module) -> None:
    original = mlp.forward
    replace_forward(mlp, lambda x: torch.cat([original(part) for part in x.chunk(2, dim=0)], dim=0))


def renamed_arguments(model: nn.Module) -> None:
    """Norms, MLPs and output projections whose forwards call what they are given by another name."""
    for block in model.model.layers:
        for module in (block.input_layernorm, block.mlp, block.self_attn.o_proj):
            _rename(module)


def _rename(module: nn.Module) -> None:
    original = module.forward
    module.forward = lambda activations: original(activations)
