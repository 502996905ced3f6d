"""Map files: names that differ, tensors that are joined, cut, turned, scaled - and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from memory_run import MemoryRun

from twinrun import compare
from twinrun.comparison.pattern import Pattern
from twinrun.comparison.result import Result
from twinrun.errors import MapError

A, B = (torch.randn(8, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))


def mapped(
    tmp_path: Path, text: str, one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]
) -> Result:
    runs = MemoryRun(), MemoryRun()
    for run, held in zip(runs, (one, two), strict=True):
        for name, tensor in held.items():
            run.add(name, tensor)
    file = tmp_path / "map.yaml"
    file.write_text(text)
    return compare(*runs, map=file)


def test_captured_indices(tmp_path: Path) -> None:
    """Captures carry indices over, shifted where the text says so."""
    text = "rules: [{baseline: 'layers.{i}:output', target: 'h.{i+1}.out'}]"
    result = mapped(
        tmp_path, text, {"layers.0:output": A, "layers.1:output": B}, {"h.1.out": A, "h.2.out": B}
    )
    assert result.exit_code == 0 and result.counts["equal"] == 2
    assert result.rows[0].target is not None and result.rows[0].target.name == "h.1.out"


def test_whole_modules(tmp_path: Path) -> None:
    """``{*rest}`` maps everything below a module."""
    text = "rules: [{baseline: 'model.layers.{i}.{*rest}', target: 'transformer.h.{i}.{*rest}'}]"
    one = {"model.layers.3.mlp.fc:output": A, "model.layers.3.attn:output": B}
    two = {name.replace("model.layers", "transformer.h"): held for name, held in one.items()}
    assert mapped(tmp_path, text, one, two).counts["equal"] == 2


@pytest.mark.parametrize("word", ["concat", "split"])
@pytest.mark.parametrize("turned", [False, True])
def test_fused_against_separate(tmp_path: Path, word: str, turned: bool) -> None:
    """q, k and v against one fused tensor, either way round."""
    sides = ["[q, k, v]", "qkv"][:: -1 if turned else 1]
    text = f"rules: [{{baseline: {sides[0]}, target: {sides[1]}, {word}: -1}}]"
    many, fused = {"q": A, "k": B, "v": A[:, :16]}, {"qkv": torch.cat([A, B, A[:, :16]], -1)}
    pair = (fused, many) if turned else (many, fused)
    result = mapped(tmp_path, text, *pair)
    assert len(result.rows) == 1 and result.exit_code == 0


def test_steps(tmp_path: Path) -> None:
    """transpose, reshape, cast and scale are carried out in order."""
    text = """
rules:
  - baseline: w
    target: v
    baseline_steps: [{transpose: [0, 1]}, {scale: 2.0}]
    target_steps: [{reshape: [64, -1]}]
  - {baseline: x, target: y, baseline_steps: [{cast: bfloat16}]}
"""
    result = mapped(
        tmp_path, text, {"w": A, "x": A}, {"v": (A.T * 2).reshape(-1), "y": A.bfloat16()}
    )
    assert result.exit_code == 0


def test_step_that_does_not_fit(tmp_path: Path) -> None:
    """A step that the tensor refuses makes the point unreadable, with the reason."""
    text = "rules: [{baseline: w, target: v, target_steps: [{reshape: [7, -1]}]}]"
    row = mapped(tmp_path, text, {"w": A}, {"v": A}).rows[0]
    assert (row.verdict, row.reason) == ("unreadable", "map") and "rule 1" in row.notes[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules: [{baseline: nothing, target: w}]", "matches nothing in the baseline"),
        ("rules: [{baseline: w, target: w}, {baseline: '{x}', target: '{x}'}]", "named by rule 1"),
        ("rules: [{baseline: w}]", "target"),
        ("rules: [{baseline: 'a.{i', target: w}]", "no capture"),
        ("rules: [{baseline: 'a.{i}', target: w}]", "captures"),
        ("rules: [{baseline: [w, w], target: w}]", "concat or split"),
        ("rules: [{baseline: w, target: w, twist: 1}]", "twist"),
        ("rules: []", "rules"),
        ("[1, 2", "YAML"),
        ("rules: [{baseline: w, target: w, baseline_steps: [{cast: int32}]}]", "no float dtype"),
    ],
)
def test_refused(tmp_path: Path, text: str, told: str) -> None:
    """A map that does not validate, matches nothing or matches twice is an error that says so."""
    with pytest.raises(MapError) as caught:
        mapped(tmp_path, text, {"w": A}, {"w": A})
    assert told in str(caught.value)


def test_every_problem_at_once(tmp_path: Path) -> None:
    """All wrong rules are told in one error."""
    with pytest.raises(MapError) as caught:
        mapped(
            tmp_path,
            "rules: [{baseline: none, target: w}, {baseline: nor, target: w}]",
            {"w": A},
            {"w": A},
        )
    assert "rule 1" in str(caught.value) and "rule 2" in str(caught.value)


def test_patterns_render_what_they_match() -> None:
    """A pattern's captures give the name back."""
    pattern = Pattern.parse("model.layers.{i+2}.{part}_proj:{*rest}")
    held = pattern.match("model.layers.7.q_proj:input.0")
    assert held == {"i": "5", "part": "q", "rest": "input.0"}
    assert pattern.render(held) == "model.layers.7.q_proj:input.0"
    assert pattern.match("model.layers.1.q_proj:x") is None
