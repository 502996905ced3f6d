"""Perturbation: a run's first floats moved by one unit in the last place, the same on every rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from observing import Stack, observing, read, value
from torch import nn

from twinrun.diagnosis import instruments
from twinrun.diagnosis.perturb import nudged

IDS = torch.tensor([[1, 2, 3]])


@contextmanager
def perturbing(path: Path, seed: int = 1) -> Iterator[None]:
    with observing(path, perturb=seed) as recorder:
        joined = instruments.join(recorder)
        try:
            yield
        finally:
            joined.remove()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_each_element_goes_to_a_neighbour(dtype: torch.dtype) -> None:
    """Up or down by one step of its own binade, about half of them each way; never twice."""
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = x[x != 0]
    moved = nudged(x, "a")
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    steps = moved.view(bits).long() - x.view(bits).long()
    assert set(steps.tolist()) == {1, -1}
    assert abs(float(steps.double().mean())) < 0.1
    assert torch.equal(nudged(x, "a"), moved)
    assert not torch.equal(nudged(x, "b"), moved)


def test_what_stays() -> None:
    """Zeros, Infs and NaNs, whole numbers, float8; the largest finite value does not become Inf."""
    most = torch.finfo(torch.float32).max
    x = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), most, -most])
    moved = nudged(x, "a")
    assert torch.equal(moved[:4], x[:4])
    assert moved[4:].isfinite().all() and (moved[4:] != x[4:]).all()
    assert nudged(torch.tensor([float("nan")]), "a").isnan().all()
    for kept in (torch.arange(3), torch.ones(3).to(torch.float8_e4m3fn), torch.ones(0)):
        assert nudged(kept, "a") is kept
    assert nudged(torch.ones(3, dtype=torch.complex64), "a").isfinite().all()


def test_gradients_pass_through() -> None:
    """The moved value's gradient is the value's own; a leaf receives it."""
    x = torch.randn(5, requires_grad=True)
    (nudged(x, "a") * 3).sum().backward()
    assert torch.equal(x.grad, torch.full((5,), 3.0))  # type: ignore[arg-type]


def test_floating_inputs_of_a_root_are_moved(tmp_path: Path) -> None:
    """Once, at the outermost module only; the program's own tensor is not touched."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(2, 4)
    given = x.clone()
    with perturbing(tmp_path / "a"):
        model(x)
    moved = value(tmp_path / "a", ":input.input")
    assert torch.equal(x, given) and not torch.equal(moved, x)
    assert torch.allclose(moved, x, rtol=2e-7)
    assert torch.equal(value(tmp_path / "a", "0:input.input"), moved)
    inner = model[0](moved)
    assert torch.equal(value(tmp_path / "a", "1:input.input"), inner)
    [note] = [n for n in read(tmp_path / "a").processes[0].notes if "unit in the last" in n]
    assert note.startswith(":input.input ")


def test_token_ids_are_moved_behind_the_embedding(tmp_path: Path) -> None:
    """Where the root is given whole numbers, the first module that gives floats is it; in each call."""
    torch.manual_seed(0)
    model = Stack(depth=1)
    with perturbing(tmp_path / "a"):
        model(IDS)
        model(IDS)
    plain = model.embed(IDS)
    first, second = (value(tmp_path / "a", "embed:output", step) for step in (0, 1))
    assert not torch.equal(first, plain) and torch.allclose(first, plain, rtol=2e-7)
    assert not torch.equal(first, second)
    assert torch.equal(value(tmp_path / "a", "layers.0:input.x"), first)
    assert read(tmp_path / "a").run.options["perturb"] == 1


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    """One seed is one perturbation; the program's random state is not drawn from."""
    torch.manual_seed(0)
    model = Stack(depth=1)
    found = []
    for at, seed in enumerate((1, 1, 2)):
        before = torch.get_rng_state()
        with perturbing(tmp_path / str(at), seed):
            model(IDS)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(value(tmp_path / str(at), ":output"))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_recomputed_embedding_is_moved_the_same(tmp_path: Path) -> None:
    """Under activation checkpointing the second forward gives what the first one gave."""
    from torch.utils.checkpoint import checkpoint

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4), nn.Tanh())

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.part, ids, use_reentrant=False)

    torch.manual_seed(0)
    model = Model()
    with perturbing(tmp_path / "a"):
        model(IDS).sum().backward()
    capture = read(tmp_path / "a")
    forward, again = (capture.tensor(r) for r in capture.records if r.name == "part.0:output")
    assert torch.equal(forward, again)
