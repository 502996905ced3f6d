"""What the seam between recorder and graft leaves as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from observing import Block, observing, records
from torch import nn

import twinrun as tr
from twinrun.recorder.intercept import beginnings, interceptors


@pytest.fixture
def looked() -> Iterator[list[str]]:
    """An interceptor that looks at every call and changes nothing."""
    seen: list[str] = []

    def look(call: Any, phase: str, tree: Any) -> Any:
        seen.append(f"{call.entry.module}:{phase}")
        return tree

    interceptors.append(look)
    yield seen
    interceptors.remove(look)


def _run(path: Path) -> list[tuple[Any, ...]]:
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block())
    with torch.no_grad(), observing(path, taps="*.down"):
        model(torch.ones(1, 4))
    return [(r.name, r.sources, r.parents, r.step) for r in records(path)]


def test_an_interceptor_changes_no_record(tmp_path: Path, looked: list[str]) -> None:
    """Modules without taps are looked at too, and what feeds what is recorded as without it."""
    held = _run(tmp_path / "with")
    assert "0:input" in looked and "1.down:output" in looked
    kept = interceptors[:]
    interceptors.clear()
    assert _run(tmp_path / "without") == held
    interceptors[:] = kept


def test_a_beginning_comes_between_the_count_and_the_parameters(tmp_path: Path) -> None:
    """Who is told of a call's begin sees its step, and may still change what will be recorded."""
    model, told = nn.Linear(2, 2, bias=False), []

    def begins(root: Any) -> None:
        told.append(root.call)
        with torch.no_grad():
            model.weight.fill_(3.0)

    beginnings.append(begins)
    try:
        with observing(tmp_path / "a", parameters=True) as recorder:
            for _ in range(2):
                model(torch.ones(1, 2))
            assert recorder.step == 1 and recorder.marks == 0
    finally:
        beginnings.remove(begins)
    assert told == [0, 1]
    (record,) = records(tmp_path / "a", kind="parameter")
    from observing import read

    assert bool((read(tmp_path / "a").tensor(record) == 3.0).all())


def test_a_dump_interceptor_adds_tags(tmp_path: Path) -> None:
    """It may overwrite the tensor first, and what it raises reaches the program."""

    def intercept(name: str, tensor: Any, dims: Any, tags: Any) -> dict[str, Any]:
        if name == "bad":
            raise ValueError(name)
        tensor.fill_(7.0)
        return {"grafted": "b2t"}

    with tr.capture(tmp_path / "a") as recorder:
        recorder.dump_interceptors.append(intercept)
        tr.dump("x", torch.zeros(2), part=1)
        with pytest.raises(ValueError, match="bad"):
            tr.dump("bad", torch.zeros(2))
    (record,) = records(tmp_path / "a")
    assert dict(record.tags) == {"part": 1, "grafted": "b2t"}
