"""How the suite of planted faults reads what the tools say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.faults.cases import Case
from benchmarks.faults.score import Grade, Named
from benchmarks.faults.table import cell, table, totals
from benchmarks.faults.tools import msprobe
from benchmarks.faults.tools.names import accused, caller


@pytest.mark.parametrize(
    ("point", "path"),
    [
        ("model.layers.1.self_attn:output.0", "model.layers.1.self_attn"),
        ("model.layers.1.self_attn.o_proj:input.input", "model.layers.1.self_attn"),
        ("model.layers.0:input.attention_mask", "model"),
        ("model.layers.1.mlp:output:grad", "model.layers.1"),
        ("model.layers.1.mlp:input.x:grad", "model.layers.1.mlp"),
        (":output.logits", ""),
    ],
)
def test_what_a_point_accuses(point: str, path: str) -> None:
    """An output accuses its module, an input the caller; gradients the other way about."""
    assert accused(point) == Named(path)


def test_a_parameter_is_accused_as_such() -> None:
    """A parameter or buffer, or its gradient, accuses itself and not its module."""
    for port in ("parameter", "parameter.grad", "buffer"):
        named = accused(f"model.layers.1.mlp.up_proj.weight:{port}", "factor")
        assert named == Named("model.layers.1.mlp.up_proj.weight", parameter=True, hint="factor")


def test_lists_of_modules_call_nothing() -> None:
    """The caller of a layer is the model, not the list that holds it."""
    assert caller("model.layers.3") == "model" and caller("lm_head") == ""


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (
            "Module.model.layers.1.self_attn.LlamaAttention.forward.0.output.0",
            Named("model.layers.1.self_attn"),
        ),
        (
            "Module.model.norm.LlamaRMSNorm.forward.0.parameters.weight",
            Named("model.norm.weight", parameter=True),
        ),
        (
            "Module.lm_head.Linear.parameters_grad.0.weight",
            Named("lm_head.weight", parameter=True),
        ),
        ("Tensor.__mul__.19.forward.output.0", Named("model.layers.1.mlp", operator="__mul__")),
        ("Functional.linear.2.forward.output.0", Named("", operator="linear")),
    ],
)
def test_rows_of_msprobe(row: str, named: Named) -> None:
    """A module's row accuses the module, a call's row the module it was made in."""
    owners = {"Tensor.__mul__.19.forward": "Module.model.layers.1.mlp.LlamaMLP.forward.0"}
    assert msprobe.accused(row, {**owners, "Functional.linear.2.forward": None}) == named


def test_errors_of_msprobe_come_before_warnings(tmp_path: Path) -> None:
    """The answer is the rows marked as errors in the order of rows, over all ranks, each once."""
    (tmp_path / "step0" / "rank0").mkdir(parents=True)
    (tmp_path / "step0" / "rank0" / "construct.json").write_text(json.dumps({}))
    rows = [("a", "warning"), ("b", "error"), ("c", "error"), ("b", "error")]
    one = [{"NPU Name": f"Module.{n}.Linear.forward.0.output.0", "Result": r} for n, r in rows]
    assert [n.path for n in msprobe.flagged([one, one], tmp_path)] == ["b", "c"]
    assert [n.path for n in msprobe.flagged([one[:1]], tmp_path)] == ["a"]
    assert not list(msprobe.flagged([[]], tmp_path))


def test_table_and_totals() -> None:
    """A row a case and a column a tool; totals count marks, right hints and healed proofs."""
    grades = {"ours": Grade("leaf", "right", "", "healed"), "msprobe": Grade("late", extra=2)}
    rows = [{"case": Case("llama", 2, fault="rope_base@1"), "grades": grades}]
    assert (
        cell(grades["ours"]) == "leaf, hint right, healed" and cell(grades["msprobe"]) == "late, +2"
    )
    assert "| rope_base@1 | llama | 1:2 | float32 | leaf, hint right" in table(rows, ["ours"])
    assert "1 late" in totals(rows, ["ours", "msprobe"]) and "healed 1 of 1" in totals(
        rows, ["ours"]
    )
