"""Which record fed which."""

from __future__ import annotations

from pathlib import Path

import torch
from observing import Block, observing, read
from torch import nn

import twinrun as tr


def _flow(path: Path) -> dict[str, tuple[set[str], set[str]]]:
    held = read(path).records
    by_number = {r.number: r.name for r in held}
    return {
        r.name: ({by_number[n] for n in r.sources}, {by_number[n] for n in r.parents}) for r in held
    }


def test_sources_are_the_same_value(tmp_path: Path) -> None:
    """A module's input is traced to the output that it is, with or without a graph."""
    model, x = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), torch.ones(1, 2)
    for name, grad in (("grad", True), ("no_grad", False)):
        with observing(tmp_path / name), torch.set_grad_enabled(grad):
            model(x)
        flow = _flow(tmp_path / name)
        assert flow["1:input.input"][0] == {"0:output"}
        assert flow[":output"][0] == {"1:output"}


def test_a_value_changed_in_place_is_another_one(tmp_path: Path) -> None:
    """After an in-place change the old record is no source any more, but a parent."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).mul_(2))

    with observing(tmp_path / "a"):
        InPlace()(torch.ones(1, 2))
    sources, parents = _flow(tmp_path / "a")["b:input.input"]
    assert sources == set()
    assert "a:output" in parents


def test_parents_come_from_the_graph(tmp_path: Path) -> None:
    """A residual sum's parents are the branches it was computed from."""
    model = nn.Sequential(Block(), Block())
    with observing(tmp_path / "a"):
        model(torch.ones(1, 4, requires_grad=True))
    _, parents = _flow(tmp_path / "a")["1:output"]
    assert {"1.down:output", "0:output"} <= parents
    assert "0.down:output" not in parents


def test_parents_without_a_graph_are_what_is_in_sight(tmp_path: Path) -> None:
    """Under no_grad and inference_mode: the call's inputs and what it called, none of them missed."""
    model = nn.Sequential(Block(), Block())
    for name, mode in (("no_grad", torch.no_grad()), ("inference", torch.inference_mode())):
        with observing(tmp_path / name), mode:
            model(torch.ones(1, 4))
        _, parents = _flow(tmp_path / name)["1:output"]
        assert parents == {"1:input.x", "1.up:output", "1.down:output"}


def test_modules_without_taps_hide_nobody(tmp_path: Path) -> None:
    """With taps on leaves only, what flows through the modules around them is still in sight."""
    model = nn.Sequential(Block(), Block())
    with observing(tmp_path / "a", taps="leaves"), torch.no_grad():
        model(torch.ones(1, 4))
        model(torch.ones(1, 4))
    held = read(tmp_path / "a").records
    second = next(r for r in held if r.name == "1.up:input.input" and r.step == 1)
    by_number = {r.number: r for r in held}
    parents = {(by_number[n].name, by_number[n].step) for n in second.parents}
    assert {("0.up:output", 1), ("0.down:output", 1)} <= parents
    assert ("0.down:output", 0) in parents, "kept in a variable, it could be"


def test_inputs_without_gradients_are_parents_too(tmp_path: Path) -> None:
    """What takes no gradients is not in the graph, and yet fed the output."""
    block = Block()
    with observing(tmp_path / "a"):
        block(torch.ones(1, 4, requires_grad=True), torch.ones(1))
    _, parents = _flow(tmp_path / "a")[":output"]
    assert {":input.scale", ":input.x"} <= parents


def test_dump_takes_part(tmp_path: Path) -> None:
    """A dumped tensor has sources, and is one."""

    class Dumping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            tr.dump("raw", y)
            y = y * 2
            tr.dump("doubled", y)
            return self.b(y)

    with observing(tmp_path / "a"):
        Dumping()(torch.ones(1, 2))
    flow = _flow(tmp_path / "a")
    assert flow["raw"][0] == {"a:output"}
    assert "a:output" in flow["doubled"][1]
    assert flow["b:input.input"][0] == {"doubled"}


def test_freed_memory_is_no_source(tmp_path: Path) -> None:
    """A new tensor at a freed tensor's address is not taken for it, and nothing is kept alive."""
    import gc
    import weakref

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Identity()
            self.seen: list[weakref.ref[torch.Tensor]] = []

        def forward(self, n: int) -> None:
            for i in range(n):
                t = torch.full((1000,), float(i))
                self.seen.append(weakref.ref(t))
                self.a(t)
                del t

    model = Chain()
    with observing(tmp_path / "a", taps="a:input"), torch.no_grad():
        model(20)
        gc.collect()
        assert not any(ref() is not None for ref in model.seen)
    assert all(r.sources == () for r in read(tmp_path / "a").records)
