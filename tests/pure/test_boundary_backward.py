"""Gradients, and activation checkpointing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from observing import Block, Stack, names, observing, records, value
from torch import nn
from torch.utils.checkpoint import checkpoint

import twinrun as tr

IDS = torch.tensor([[1, 2, 3]])


class Checkpointed(nn.Module):
    """A model whose blocks are run again in the backward pass."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.layers = nn.ModuleList([Block(), Block()])
        self.reentrant = reentrant

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            if self.reentrant is None:
                x = layer(x)
            else:
                x = checkpoint(layer, x, use_reentrant=self.reentrant)
        return x.sum()


def _model(reentrant: bool | None) -> Checkpointed:
    torch.manual_seed(0)
    return Checkpointed(reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_recompute_is_tagged(tmp_path: Path, reentrant: bool) -> None:
    """A recomputed forward has the names of the first one and is marked; nothing else is."""
    model = _model(reentrant)
    with observing(tmp_path / "a"):
        model(IDS).backward()
        model(IDS)
    first = names(tmp_path / "a", recompute=False, step=0)
    again = names(tmp_path / "a", recompute=True, step=0)
    inside = [name for name in first if name.startswith("layers.")]
    assert set(again) <= set(inside)
    assert "layers.0.up:output" in again
    assert len(again) == len(set(again))
    assert names(tmp_path / "a", step=1) == first


@pytest.mark.parametrize("reentrant", [False, True])
def test_recompute_belongs_to_its_own_call(tmp_path: Path, reentrant: bool) -> None:
    """Two forwards, then two backwards: each recompute is in the step whose forward it repeats."""
    model = _model(reentrant)
    with observing(tmp_path / "a"):
        first, second = model(IDS), model(IDS + 1)
        first.backward()
        second.backward()
    again = records(tmp_path / "a", recompute=True, name="layers.0.up:output")
    assert [r.step for r in again] == [0, 1]
    for step in (0, 1):
        found = records(tmp_path / "a", name="layers.0.up:output", step=step)
        assert [r.recompute for r in found] == [False, True]


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_do_not_depend_on_checkpointing(tmp_path: Path, reentrant: bool) -> None:
    """A checkpointed run records the gradients of the plain run, once each and equal."""
    for name, how in (("plain", None), ("again", reentrant)):
        with observing(tmp_path / name, gradients=True):
            _model(how)(IDS).backward()
    plain = sorted(names(tmp_path / "plain", kind="gradient"))
    assert sorted(names(tmp_path / "again", kind="gradient")) == plain
    for name in plain:
        assert torch.equal(value(tmp_path / "again", name), value(tmp_path / "plain", name)), name


def test_gradient_of_a_tensor_is_its_total(tmp_path: Path) -> None:
    """A tensor that is used twice has the sum of both uses."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x)
            return (y * 2 + y * 3).sum()

    with observing(tmp_path / "a", gradients=True):
        Twice()(torch.ones(1, 2)).backward()
    assert torch.equal(value(tmp_path / "a", "inner:output:grad"), torch.full((1, 2), 5.0))


def test_parameter_gradients_wait_for_the_optimizer(tmp_path: Path) -> None:
    """With accumulation they are read once, complete, before the optimizer uses them."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    totals = []
    with observing(tmp_path / "a", gradients=True, taps="none"):
        for _ in range(2):
            for _ in range(3):
                model(torch.ones(1, 2)).sum().backward()
            totals.append(model.weight.grad.clone())
            optimizer.step()
            optimizer.zero_grad()
        model(torch.ones(1, 2))
    found = records(tmp_path / "a", kind="gradient")
    assert [(r.name, r.step) for r in found] == [
        ("weight:parameter.grad", 2),
        ("weight:parameter.grad", 5),
    ]
    for r, total in zip(found, totals, strict=True):
        assert torch.equal(value(tmp_path / "a", r.name, r.step), total)


def test_parameter_gradients_without_an_optimizer(tmp_path: Path) -> None:
    """Where no optimizer takes them they are read at tr.step(), else when the capture closes."""
    model = nn.Linear(2, 1, bias=False)
    with observing(tmp_path / "marked", gradients=True, taps="none"):
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            tr.step()
            model.weight.grad = None
    assert [r.step for r in records(tmp_path / "marked", kind="gradient")] == [0, 1]
    with observing(tmp_path / "closed", gradients=True, taps="none"):
        model(torch.ones(1, 2)).sum().backward()
        model(torch.ones(1, 2)).sum().backward()
    assert names(tmp_path / "closed") == ["weight:parameter.grad"]
    assert torch.equal(
        value(tmp_path / "closed", "weight:parameter.grad", step=1), model.weight.grad
    )


def test_two_optimizers_take_their_own(tmp_path: Path) -> None:
    """Each optimizer's step reads the gradients of its own parameters."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.SGD(model[1].parameters(), lr=0.1)
    with observing(tmp_path / "a", gradients=True, taps="none"):
        model(torch.ones(1, 2)).sum().backward()
        second.step()
        first.step()
    assert names(tmp_path / "a") == ["1.weight:parameter.grad", "0.weight:parameter.grad"]


def test_main_grad_is_the_gradient_where_a_framework_has_one(tmp_path: Path) -> None:
    """An optimizer over master copies: every fresh model's gradients, from main_grad."""
    model = nn.Linear(2, 1, bias=False)
    master = nn.Parameter(model.weight.detach().double())
    optimizer = torch.optim.SGD([master], lr=0.1)
    with observing(tmp_path / "a", gradients=True, taps="none"):
        model(torch.ones(1, 2)).sum().backward()
        model.weight.main_grad = model.weight.grad.double() * 2
        master.grad = model.weight.main_grad
        optimizer.step()
    assert value(tmp_path / "a", "weight:parameter.grad").dtype is torch.float64


def test_nothing_changes(tmp_path: Path) -> None:
    """Outputs, gradients and random states are bit for bit the same with observation on."""

    def train() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(Stack(depth=2), nn.Dropout(0.5))
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            loss = model(IDS).square().sum()
            loss.backward()
            optimizer.step()
        gradients = [p.grad for p in model.parameters()]
        return [loss.detach(), torch.get_rng_state(), *model.state_dict().values(), *gradients]

    plain = train()
    with observing(tmp_path / "a", gradients=True, parameters=True):
        observed = train()
    assert all(torch.equal(a, b) for a, b in zip(plain, observed, strict=True))


def test_gradients_of_a_model_that_its_program_lets_go(tmp_path: Path) -> None:
    """What no optimizer took is read when the model goes, not lost with it."""
    with observing(tmp_path / "a", gradients=True):
        model = _model(None)
        model(IDS).backward()
        wanted = model.embed.weight.grad
        assert wanted is not None
        wanted = wanted.clone()
        del model
    assert torch.equal(value(tmp_path / "a", "embed.weight:parameter.grad"), wanted)
