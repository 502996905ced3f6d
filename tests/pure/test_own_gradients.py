"""Own gradients: what a module alone sends back to its inputs, beside the total of all uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from observing import Stack, names, observing, read, value
from torch import nn
from torch.utils.checkpoint import checkpoint

from twinrun.diagnosis import instruments
from twinrun.grafting.seam import Seam

IDS = torch.tensor([[1, 2, 3]])


@contextmanager
def following(path: Path, **options: Any) -> Iterator[None]:
    with observing(path, own_gradients=True, gradients=True, **options) as recorder:
        joined = instruments.join(recorder)
        try:
            yield
        finally:
            joined.remove()


def own(path: Path) -> list[str]:
    return [name for name in names(path) if name.endswith(":grad.own")]


class Residual(nn.Module):
    """Three uses of one tensor inside a child, one outside."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.child = Thrice()
        self.last = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x + self.child(x))


class Thrice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.q(x)) * self.k(x) + self.v(x).exp()


def test_own_is_what_the_module_alone_sends_back(tmp_path: Path) -> None:
    """It is autograd's gradient of the module by itself; the total holds the residual's share too."""
    torch.manual_seed(0)
    model, x = Residual(), torch.randn(3, 4)
    with following(tmp_path / "a"):
        model(x).square().sum().backward()
    run = tmp_path / "a"
    given = value(run, "child:input.x").requires_grad_()
    arrived = value(run, "child:output:grad")
    [alone] = torch.autograd.grad(model.child(given), given, arrived)
    assert torch.allclose(value(run, "child:input.x:grad.own"), alone, rtol=1e-6)
    total = value(run, "child:input.x:grad")
    assert torch.allclose(total, alone + value(run, "last:input.input:grad"), rtol=1e-6)
    assert not torch.allclose(total, alone)
    for part in ("q", "k", "v"):
        linear = getattr(model.child, part)
        expected = value(run, f"child.{part}:output:grad") @ linear.weight
        assert torch.allclose(value(run, f"child.{part}:input.input:grad.own"), expected)
    [record] = [r for r in read(run).records if r.name == "child:input.x:grad.own"]
    assert (record.kind, record.module, record.step) == ("gradient", "child", 0)


def several(reentrant: bool | None = None) -> list[torch.Tensor]:
    """Gradients of a model of residual blocks whose input takes gradients, twice backward."""
    torch.manual_seed(0)
    model, x = nn.Sequential(Residual(), Residual()), torch.randn(3, 4, requires_grad=True)
    if reentrant is None:
        out = model(x)
    else:
        out = model[1](checkpoint(model[0], x, use_reentrant=reentrant))
    out.square().sum().backward(retain_graph=True)
    out.sum().backward()
    return [x.grad, out.detach(), *(p.grad for p in model.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_nothing_changes(tmp_path: Path, reentrant: bool | None) -> None:
    """Every gradient of the program is the same bits, leaves receive theirs, checkpoints too."""
    expected = several(reentrant)
    with following(tmp_path / "a"):
        found = several(reentrant)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    # Outside Sequential, each block is a root of its own.
    child = [name for name in own(tmp_path / "a") if "child:input.x" in name]
    assert len(child) == 4, "two blocks, two backward passes"


def test_a_leaf_that_is_an_input(tmp_path: Path) -> None:
    """An input without a history has an own gradient as well."""
    torch.manual_seed(0)
    module, x = nn.Linear(4, 4), torch.randn(2, 4, requires_grad=True)
    with following(tmp_path / "a"):
        (module(x).sum() + x.sum()).backward()
    expected = module.weight.sum(0).expand(2, 4)
    assert torch.allclose(value(tmp_path / "a", ":input.input:grad.own"), expected)
    assert torch.allclose(x.grad, expected + 1)  # type: ignore[arg-type]


def test_what_has_none(tmp_path: Path) -> None:
    """Whole numbers, no_grad, and a module that gives back its input, which says so."""
    with following(tmp_path / "a"):
        model = Stack(depth=1)
        model(IDS).sum().backward()
        with torch.no_grad():
            model(IDS)
    found = own(tmp_path / "a")
    assert found[0] == "head:input.input:grad.own"
    assert not any(name.startswith((":input", "embed")) for name in found)
    with following(tmp_path / "b"):
        linear = nn.Sequential(nn.Linear(4, 4), nn.Identity())
        linear(torch.ones(1, 4)).sum().backward()
    assert own(tmp_path / "b") == []
    assert any("given back as it is" in note for note in read(tmp_path / "b").processes[0].notes)


def test_an_input_changed_in_place(tmp_path: Path) -> None:
    """A module may still write to its input; its gradient is that of the value it was given."""

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x.mul_(3)
            return self.linear(x)

    def run() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), Writes())
        model(torch.ones(2, 4)).sum().backward()
        return [p.grad for p in model.parameters()]  # type: ignore[misc]

    expected = run()
    with following(tmp_path / "a"):
        found = run()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    run_at = tmp_path / "a"
    inner = value(run_at, "1.linear:input.input:grad.own")
    assert torch.allclose(value(run_at, "1:input.x:grad.own"), inner * 3)


def test_a_grafted_gradient_is_recorded_natively_too(tmp_path: Path) -> None:
    """What arrived before it was replaced is ``:grad.native``; what goes on is ``:grad``."""

    class Doubles:
        """A session that puts twice the value in the place of one output's gradient."""

        directions = SimpleNamespace(by_layer=False, retagged=True, may_take=lambda site: True)
        settings = SimpleNamespace(gradient="leaf")
        guarding = nullcontext

        def begin(self, step: int) -> None: ...

        def asks(self, site: Any) -> bool:
            return bool(site.name == "1:output:grad")

        def direction(self, site: Any) -> str:
            return "b2t"

        def pass_through(self, site: Any, given: torch.Tensor) -> tuple[bool, torch.Tensor]:
            return (True, given * 2) if self.asks(site) else (False, given)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    with observing(tmp_path / "a", own_gradients=True, gradients=True) as recorder:
        seam = Seam(Doubles(), recorder)  # type: ignore[arg-type]
        seam.install()
        joined = instruments.join(recorder)
        model(torch.randn(2, 4)).sum().backward()
        joined.remove()
        seam.remove()
    run = tmp_path / "a"
    native = value(run, "1:output:grad.native")
    assert torch.equal(value(run, "1:output:grad"), native * 2)
    assert torch.allclose(value(run, "1:input.input:grad.own"), native * 2 @ model[1].weight)
    assert torch.equal(native, value(run, "2:input.input:grad.own"))
    assert not any("0:output:grad.native" in name for name in names(run))


def test_what_was_computed_outside_is_not_its_own(tmp_path: Path) -> None:
    """A use of the input before the call, which the module gets by another way, is not counted."""

    class Child(nn.Module):
        side: torch.Tensor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 + self.side

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.child = nn.Linear(4, 4), Child()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            self.child.side = x * 5
            return self.child(x)

    with following(tmp_path / "a"):
        Model()(torch.ones(1, 4)).sum().backward()
    assert value(tmp_path / "a", "child:input.x:grad.own").tolist() == [[2.0] * 4]
    assert value(tmp_path / "a", "child:input.x:grad").tolist() == [[7.0] * 4]
