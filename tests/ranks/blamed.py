"""A small program to blame: numbered blocks with a norm, an attention-like mix and an MLP, plain torch.

python blamed.py [--fault NAME@BLOCK ...] [--dtype bfloat16] [--backward] [--input-seed N]
torchrun --nproc-per-node 2 blamed.py ...   # the MLP's width is split over the ranks
"""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn

WIDTH, INNER, BLOCKS = 16, 32, 3
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.eps = 1e-6
        self.cast_first = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.cast_first:
            return self.weight * wide.to(x.dtype)
        return (self.weight.float() * wide).to(x.dtype)


class Mix(nn.Module):
    """Each position takes in those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH, bias=False)
        self.scale = WIDTH**-0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.query(x) @ x.transpose(-1, -2) * self.scale
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1, dtype=torch.float32)
        return weights.to(x.dtype) @ self.value(x)


class Reduced(nn.Linear):
    """The second half of a split MLP: its ranks' sums are added."""

    reduces = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if WORLD > 1 and self.reduces:
            y = y.contiguous()
            dist.all_reduce(y)
        return y


class Shared(torch.autograd.Function):
    """What every rank is given: each sends back its share of the gradient, and they are added."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class Spread(nn.Linear):
    """The first half of a split MLP."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(Shared.apply(input) if WORLD > 1 else input)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix = Norm(), Mix()
        self.up, self.act, self.down = (
            Spread(WIDTH, INNER, bias=False),
            nn.GELU(),
            Reduced(INNER, WIDTH, bias=False),
        )
        self.residual = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.residual * x + self.mix(self.norm(x))
        return x + self.down(self.act(self.up(x)))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, 32, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def split(model: Model) -> None:
    """Keep this rank's share of every MLP."""
    share = slice(RANK * INNER // WORLD, (RANK + 1) * INNER // WORLD)
    for block in model.blocks:
        block.up.weight = nn.Parameter(block.up.weight[share].clone())
        block.down.weight = nn.Parameter(block.down.weight[:, share].clone())


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


def plant(model: Model, text: str) -> None:
    name, _, number = text.partition("@")
    block = model.blocks[int(number or 1)]
    if name == "scale":
        block.mix.scale *= 1.1
    elif name == "gelu":
        block.act.approximate = "tanh"
    elif name == "eps":
        block.norm.eps = 1e-2
    elif name == "cast":
        block.norm.cast_first = False
    elif name == "residual":
        block.residual = 0.5
    elif name == "weight":
        with torch.no_grad():
            block.mix.value.weight[3] *= -1
    elif name == "reduce":
        block.down.reduces = False
    elif name == "gradient":
        block.norm.weight.register_hook(lambda gradient: gradient / 2)
    elif name == "backward":
        forward = block.act.forward
        block.act.forward = lambda input: Halved.apply(forward(input))
    elif name == "renamed":
        # As a port might: the same layer with another parameter's name, and a fault.
        down = block.down.forward
        block.down.forward = lambda states: 1.1 * down(states)
    elif name == "chunks":
        up = block.up.forward
        block.up.forward = lambda input: torch.cat([up(part) for part in input.split(1)], 0)
    else:
        raise SystemExit(f"no fault is called {name}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", action="append", default=[])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--input-seed", type=int, default=1)
    parser.add_argument("--fail", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Model().to(getattr(torch, given.dtype))
    if WORLD > 1:
        dist.init_process_group("gloo")
        split(model)
    for text in given.fault:
        plant(model, text)
    torch.manual_seed(given.input_seed)
    tokens = torch.randint(0, 32, (2, 8))
    with torch.set_grad_enabled(given.backward):
        logits = model(tokens)
    if given.backward:
        logits.float().pow(2).mean().backward()
    if given.fail:
        raise SystemExit("the program itself fails")
    if WORLD > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
