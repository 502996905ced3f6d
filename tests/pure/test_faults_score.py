"""The score of a tool's answer on the suite of planted faults, and the suite's own table."""

from __future__ import annotations

from collections import Counter

import pytest
from benchmarks.faults.cases import Case, faulty, right, select
from benchmarks.faults.faults import BY_NAME, FAULTS, Expected
from benchmarks.faults.score import Answer, Named, downstream, grade, place

SCALE = Expected("model.layers.1.self_attn", "model.layers.1", ("mul",), ("factor",))
ROW = Expected("model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj", parameter=True)


def blamed(*named: Named | str) -> Answer:
    return Answer(tuple(n if isinstance(n, Named) else Named(n) for n in named), "blamed")


@pytest.mark.parametrize(
    ("named", "mark"),
    [
        (["model.layers.1.self_attn"], "leaf"),
        (["model.layers.1"], "parent"),
        (["model.layers.1.mlp"], "late"),
        (["model"], "late"),
        (["lm_head", "model.layers.1.self_attn"], "late"),
        (["model.layers.0.mlp", "model.layers.1.self_attn"], "late"),
        (["model.layers.0.mlp"], "false alarm"),
        ([], "missed"),
    ],
)
def test_one_fault(named: list[str], mark: str) -> None:
    """What is named first decides; naming only what is sound and upstream is a false alarm."""
    assert grade(blamed(*named), [SCALE]).mark == mark


def test_nothing_planted() -> None:
    """Where nothing was planted, naming anything is a false alarm and silence is right."""
    assert grade(blamed("model.layers.1"), []).mark == "false alarm"
    assert grade(Answer((), "undecided"), []).mark == "clean"


def test_a_weight_is_not_its_module() -> None:
    """A wrong weight is named exactly by the parameter's name alone."""
    assert grade(blamed(Named(ROW.leaf, parameter=True)), [ROW]).mark == "leaf"
    assert grade(blamed("model.layers.1.mlp.up_proj"), [ROW]).mark == "parent"
    assert grade(blamed(Named("model.layers.1.self_attn.bias", True)), [SCALE]).mark == "parent"


def test_two_faults() -> None:
    """Both must be named; the one that is named is no mistake about the other."""
    two = [SCALE, Expected("model.layers.2.mlp", "model.layers.2")]
    assert grade(blamed("model.layers.1.self_attn", "model.layers.2.mlp"), two).mark == "leaf"
    assert grade(blamed("model.layers.2.mlp", "model.layers.1.self_attn"), two).mark == "leaf"
    assert grade(blamed("model.layers.1.self_attn"), two).mark == "missed"
    assert grade(blamed("model.layers.1.self_attn", "model.layers.2"), two).mark == "parent"


def test_a_fault_inside_the_parent_of_another() -> None:
    """A layer that is named for its own fault does not answer for the attention inside it."""
    two = [Expected("model.layers.1", "model"), SCALE]
    assert grade(blamed("model.layers.1"), two).mark == "missed"
    assert grade(blamed("model.layers.1", "model.layers.1.self_attn"), two).mark == "leaf"


def test_hint_operator_and_proof() -> None:
    """Hints and operators are graded where the table expects one, on the name that met the fault."""
    told = Named("model.layers.1.self_attn", operator="aten.mul.Tensor", hint="factor")
    held = grade(Answer((told,), "blamed", proof="healed"), [SCALE])
    assert (held.hint, held.operator, held.proof) == ("right", "right", "healed")
    other = grade(blamed(Named("model.layers.1.self_attn", hint="sign")), [SCALE])
    assert (other.hint, other.operator) == ("wrong", "none")
    assert grade(blamed(Named(ROW.leaf, True, hint="factor")), [ROW]).hint == ""


def test_extra_names_are_counted() -> None:
    """What is named beside the fault is counted, whatever the mark."""
    assert grade(blamed("model.layers.1.self_attn", "lm_head"), [SCALE]).extra == 1


def test_order_of_execution() -> None:
    """Downstream is later in the forward pass and earlier in the backward pass."""
    order = ["model.embed_tokens", "model.layers.0.mlp", "model.layers.1.self_attn.q_proj",
             "model.layers.1.self_attn.o_proj", "model.layers.1.mlp", "model.layers.10",
             "model.norm", "lm_head"]  # fmt: skip
    assert sorted(order, key=place) == order
    back = Expected("model.layers.1.mlp", "model.layers.1", backward=True)
    assert downstream("model.layers.0.mlp", back) and not downstream("lm_head", back)


def test_cases_are_distinct_and_expect_something() -> None:
    """Every case has a file of its own; faults expect a finding, and right programs none."""
    cases = [*faulty(), *right(2)]
    assert max(Counter(case.key for case in cases).values()) == 1
    assert all(bool(case.expected) == bool(case.fault) for case in cases)
    assert len(Case("llama", 1, fault="attention_scale_everywhere@1").expected) == 4


def test_table_holds_what_issue_asks_for() -> None:
    """Faults of several ranks run on several; faults that need a bias have one."""
    assert len(FAULTS) > 12
    assert all(
        1 not in BY_NAME[n].tp for n in ("missing_all_reduce", "doubled_bias", "wrong_shard")
    )
    assert BY_NAME["doubled_bias"].bias and BY_NAME["bias_gradient_halved"].bias


def test_select() -> None:
    """Globs, joined by commas, choose by fault or rewrite; none stands for models without either."""
    cases = [*faulty(), *right(1)]
    assert {c.name for c in select(cases, names="rope_*", tp=[1])} >= {"rope_base@1"}
    assert all(not c.fault and not c.rewrite for c in select(cases, names="none"))
