"""Operators: what a module's own code executes, recorded in order without changing it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from observing import observing, read, records, value
from torch import nn
from torch.nn import functional as F

from twinrun.diagnosis import instruments
from twinrun.diagnosis.operator_file import NAME, Sequence, sequences
from twinrun.errors import CaptureError


@contextmanager
def listing(path: Path, globs: str = "*", **options: Any) -> Iterator[None]:
    """Record operators while the block runs."""
    with observing(path, operators=globs, **options) as recorder:
        joined = instruments.join(recorder)
        try:
            yield
        finally:
            joined.remove()


def sequence(path: Path, module: str = "") -> Sequence:
    """The first call of a module."""
    capture = read(path)
    return next(iter(sequences(capture.path, capture.processes[0], module)))


def refused(path: Path) -> dict[str, str]:
    return read(path).processes[0].reports.get("operators", {}).get("modules", {})


class Scaled(nn.Module):
    """A child, a parameter, a buffer, a constant, a view, an in-place and a two-tensor operator."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(4, 4)
        self.gain = nn.Parameter(torch.randn(4))
        self.register_buffer("bias", torch.randn(4))

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor) -> torch.Tensor:
        y = self.child(x) * self.gain + self.bias
        y = y.transpose(0, 1)
        y.add_(mask)
        best = torch.topk(y, 2)
        return best.values.sum() + F.softmax(y * 0.125, dim=-1, dtype=torch.float32)


def test_operators_in_order(tmp_path: Path) -> None:
    """Names count each operator in the call; views are listed without values; children are left out."""
    torch.manual_seed(0)
    model, x, mask = Scaled(), torch.randn(4, 4), torch.randn(4, 4)
    with listing(tmp_path / "a", "*"):
        out = model(x, mask=mask)
    own = [r.name for r in records(tmp_path / "a", role="operator", module="")]
    assert own == [
        ":op.mul.0", ":op.add.0", ":op.add_.0", ":op.topk.0.0", ":op.topk.0.1", ":op.sum.0",
        ":op.mul.1", ":op._softmax.0", ":op.add.1",
    ]  # fmt: skip
    assert torch.equal(value(tmp_path / "a", ":op.add.1"), out)
    steps = sequence(tmp_path / "a").steps
    assert [step.name for step in steps if step.is_view] == ["transpose"]
    found = {step.record(""): step for step in steps}
    assert [one.origin for one in found[":op.mul.0"].inputs] == [
        "child:child:output",
        "parameter:gain",
    ]
    assert [one.origin for one in found[":op.add.0"].inputs] == ["op:0", "buffer:bias"]
    assert [one.origin for one in found[":op.add_.0"].inputs][1] == "input.mask"
    assert found[":op.mul.1"].arguments == {"other": 0.125}
    assert found[":op._softmax.0"].arguments == {"dim": -1, "half_to_float": False}
    assert found[":op.add.1"].inputs[0].origin == "op:5"
    child = [step.name for step in sequence(tmp_path / "a", "child").steps]
    assert child == ["t", "addmm"]
    assert refused(tmp_path / "a") == {}


def test_an_operator_in_place_is_recorded_after_it(tmp_path: Path) -> None:
    """The value is what the tensor holds then, whatever becomes of it."""

    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 0
            y.mul_(2)
            y.mul_(3)
            return y

    with listing(tmp_path / "a"):
        InPlace()(torch.ones(2))
    run = tmp_path / "a"
    root = "InPlace"
    assert value(run, f"{root}:op.mul_.0").tolist() == [2, 2]
    assert value(run, f"{root}:op.mul_.1").tolist() == [6, 6]
    last = sequence(run, root).steps[-1]
    assert (last.inputs[0].origin, last.writes) == ("op:1", ("self",))


def test_defaults_are_told(tmp_path: Path) -> None:
    """An argument that a call leaves out has its default, so that two runs can be held side by side."""
    with listing(tmp_path / "a"):
        nn.GELU()(torch.ones(2))
    assert sequence(tmp_path / "a", "GELU").steps[0].arguments == {"approximate": "none"}


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_autograd_modes_list_the_same(tmp_path: Path, mode: Any) -> None:
    """Under inference_mode composite operators are taken apart as they are otherwise."""
    torch.manual_seed(0)
    model, x, mask = Scaled(), torch.randn(4, 4), torch.randn(4, 4)
    with listing(tmp_path / "a"), mode():
        model(x, mask=mask)
    assert [step.name for step in sequence(tmp_path / "a").steps] == [
        "mul", "add", "transpose", "add_", "topk", "sum", "mul", "_softmax", "add",
    ]  # fmt: skip


def everything(x: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.ModuleList([Scaled(), nn.Dropout(0.5), nn.LSTM(4, 4), nn.MultiheadAttention(4, 2)])
    given = x.clone().requires_grad_()
    y = model[0](given, mask=mask)
    y = model[2](model[1](y))[0]
    y = model[3](y, y, y)[0]
    y.sum().backward()
    with torch.inference_mode():
        still = model[2](model[0](x, mask=mask))[0]
    return [
        y.detach(),
        still,
        given.grad,
        *(p.grad for p in model.parameters()),
        torch.get_rng_state(),
    ]  # type: ignore[list-item]


def test_nothing_changes(tmp_path: Path) -> None:
    """Outputs, gradients and random state are the same bits."""
    x, mask = torch.randn(4, 4), torch.randn(4, 4)
    expected = everything(x, mask)
    with listing(tmp_path / "a"):
        found = everything(x, mask)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert refused(tmp_path / "a") == {}


def test_checkpointed_with_a_policy(tmp_path: Path) -> None:
    """A selective checkpoint's own dispatch mode counts the same operators."""
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

    def run() -> list[torch.Tensor]:
        torch.manual_seed(0)
        block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.block = block

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                def contexts() -> Any:
                    return create_selective_checkpoint_contexts([torch.ops.aten.addmm.default])

                return checkpoint(self.block, x, use_reentrant=False, context_fn=contexts)

        x = torch.randn(3, 4, requires_grad=True)
        Model()(x).sum().backward()
        return [x.grad, *(p.grad for p in block.parameters())]  # type: ignore[list-item]

    expected = run()
    with listing(tmp_path / "a", shadow="*"):
        found = run()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert [s.name for s in sequence(tmp_path / "a", "block.0").steps] == ["t", "addmm"]
    assert "block.2:shadow.output" in [r.name for r in records(tmp_path / "a", role="shadow")]


def test_an_exception_of_the_program_ends_the_listing(tmp_path: Path) -> None:
    """The mode is gone, what was executed is written."""

    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + 1
            raise RuntimeError("no")

    with listing(tmp_path / "a"):
        with pytest.raises(RuntimeError, match="no"):
            Fails()(torch.ones(1))
        torch.ones(1) * 2
    assert [step.name for step in sequence(tmp_path / "a", "Fails").steps] == ["add"]


def test_long_calls_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the bound is counted."""
    monkeypatch.setattr("twinrun.diagnosis.listing.MOST", 3)

    class Long(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                x = x + 1
            return x

    with listing(tmp_path / "a"):
        Long()(torch.ones(1))
    found = sequence(tmp_path / "a", "Long")
    assert (len(found.steps), found.cut) == (3, 2)
    assert any("2 operators more" in note for note in read(tmp_path / "a").processes[0].notes)


def test_compiled_modules_are_refused(tmp_path: Path) -> None:
    """A compiled module executes kernels; it says so and runs as ever."""
    module = nn.Linear(2, 2)
    module.compile(backend="eager")
    with listing(tmp_path / "a"):
        module(torch.ones(1, 2))
    assert "torch.compile" in refused(tmp_path / "a")[""]


HOSTILE = [
    b"[]\n", b'{"module": ""}\n', b'{"module":"","class":"","call":-1,"mark":0,"ops":[],"cut":0}\n',
    b'{"module":"","class":"","call":0,"mark":0,"ops":[{"op":1}],"cut":0}\n', b"\xff\xfe\n",
    b'{"module":"","class":"","call":0,"mark":0,"ops":7,"cut":0}\n',
    b'{"module":"","class":"","call":0,"mark":0,"cut":0,"ops":[{"op":"a","overload":"","k":0,"in":[],"out":[],"args":[]}]}\n',
    b'{"module":"","class":"","call":0,"mark":0,"cut":0,"ops":[3]}\n',
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE)
def test_a_damaged_file_is_an_error_that_names_the_line(tmp_path: Path, data: bytes) -> None:
    """Anybody may have written the file: CaptureError, and nothing else."""
    with listing(tmp_path / "a"):
        nn.Linear(2, 2)(torch.ones(1, 2))
    [path] = (tmp_path / "a").rglob(NAME)
    whole = path.read_bytes()
    json.loads(whole)
    path.write_bytes(whole + data)
    capture = read(tmp_path / "a")
    with pytest.raises(CaptureError, match=f"{NAME}:2"):
        list(sequences(capture.path, capture.processes[0], ""))
