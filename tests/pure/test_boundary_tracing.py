"""The boundary under code that traces, compiles or transforms modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from observing import Block, Stack, names, observing, read, value
from torch import nn

IDS = torch.tensor([[1, 2, 3]])


def _reset() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("how", ["function", "module", "in_place"])
def test_compile_stays_whole(tmp_path: Path, how: str) -> None:
    """torch.compile(fullgraph=True) holds; the compiled model's own inputs and outputs are observed."""
    _reset()
    torch.manual_seed(0)
    model, x = nn.Sequential(Block(), Block()), torch.ones(1, 4)
    expected = model(x)
    with observing(tmp_path / "a"):
        if how == "function":

            def call(x: torch.Tensor) -> torch.Tensor:
                return model(x) * 2

            received = torch.compile(call, backend="eager", fullgraph=True)(x) / 2
        elif how == "module":
            received = torch.compile(model, backend="eager", fullgraph=True)(x)
        else:
            model.compile(backend="eager", fullgraph=True)
            received = model(x)
    assert torch.equal(received, expected)
    assert names(tmp_path / "a") == ([] if how == "function" else [":input.input", ":output"])


def test_compiled_away_taps_are_told(tmp_path: Path) -> None:
    """Taps inside a compiled region did not fire, and the report says why."""
    _reset()
    model = torch.compile(nn.Sequential(Block(), Block()), backend="eager", fullgraph=True)
    with observing(tmp_path / "a"):
        model(torch.ones(1, 4))
    told = read(tmp_path / "a").processes[0].reports["unfired"]
    assert told
    assert all(row["reason"].startswith("inside a compiled region") for row in told)


def test_inductor_and_graph_breaks(tmp_path: Path) -> None:
    """A region inside an eager model is compiled; modules outside it are observed as ever."""
    _reset()
    model = Stack(depth=1)
    expected = model(IDS)
    model.layers[0].compile(backend="aot_eager", fullgraph=True)
    with observing(tmp_path / "a", taps="leaves"):
        received = model(IDS)
    assert torch.equal(received, expected)
    assert names(tmp_path / "a", role="output") == ["embed:output", "head:output"]


def test_recompiling_once(tmp_path: Path) -> None:
    """Opening and closing captures does not make torch.compile compile again."""
    _reset()
    counter = torch._dynamo.testing.CompileCounter()
    model, x = torch.compile(Block(), backend=counter, fullgraph=True), torch.ones(1, 4)
    model(x)
    with observing(tmp_path / "a"):
        model(x)
    with observing(tmp_path / "b"):
        model(x)
    assert counter.frame_count == 1


def test_export_and_fx_and_jit(tmp_path: Path) -> None:
    """torch.export, fx.symbolic_trace and jit.trace record nothing and give the graphs they gave."""
    block, x = Block(), torch.ones(1, 4)
    plain = str(torch.fx.symbolic_trace(block).graph)
    exported = torch.export.export(block, (x,))
    with observing(tmp_path / "a"):
        assert str(torch.fx.symbolic_trace(block).graph) == plain
        assert str(torch.export.export(block, (x,)).graph) == str(exported.graph)
        traced = torch.jit.trace(block, (x,), check_trace=False)
    assert names(tmp_path / "a") == []
    assert "clone" not in str(traced.graph)
    assert torch.equal(traced(x), block(x))


def test_functional_transforms(tmp_path: Path) -> None:
    """Under vmap and grad a module's tensors have no values to record; the transform works."""
    block, x = Block(), torch.ones(3, 4)
    expected = torch.vmap(block)(x)
    with observing(tmp_path / "a"):
        assert torch.equal(torch.vmap(block)(x), expected)
        torch.func.grad(lambda y: block(y).sum())(x)


def test_meta_tensors_have_no_payload(tmp_path: Path) -> None:
    """A meta model runs; its records say that they hold no values."""
    with observing(tmp_path / "a"):
        nn.Linear(2, 2, device="meta")(torch.empty(1, 2, device="meta"))
    assert not any(r.has_payload for r in read(tmp_path / "a").records)


def test_inference_mode(tmp_path: Path) -> None:
    """Inference tensors, which have no version, are recorded."""
    block, x = Block(), torch.ones(1, 4)
    with observing(tmp_path / "a"), torch.inference_mode():
        received = block(x)
    assert torch.equal(value(tmp_path / "a", ":output"), received)


def test_default_device_and_dtype_do_not_matter(tmp_path: Path) -> None:
    """Global torch settings neither disturb recording nor are changed by it."""
    block, x = Block(), torch.ones(1, 4)
    torch.set_default_dtype(torch.float64)
    try:
        with observing(tmp_path / "a"):
            block(x)
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert value(tmp_path / "a", ":output").dtype is torch.float32
