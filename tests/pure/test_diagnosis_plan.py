"""Which modules a pass isolates, what it grafts, and what a shadow decides: plain values in and out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_run import MemoryRun

from twinrun import compare
from twinrun.diagnosis.calls import called_otherwise
from twinrun.diagnosis.finding import Finding, Shadow, Suspect
from twinrun.diagnosis.frontier import frontier, inside
from twinrun.diagnosis.grafts import boundaries, either, points, write_aliases, write_layouts
from twinrun.diagnosis.roots import unequal_inputs
from twinrun.diagnosis.threeway import settle
from twinrun.diagnosis.tree import Tree, tree_of
from twinrun.diagnosis.weighing import Weighing
from twinrun.recorder.aliases import read_aliases
from twinrun.recorder.filter import parse_filter

PATHS = st.lists(
    st.lists(st.sampled_from(["a", "layers", "0", "1", "2", "mlp"]), min_size=1, max_size=4),
    min_size=1,
    max_size=12,
)


def run_of(*modules: str, **values: float) -> MemoryRun:
    run = MemoryRun()
    for path in modules:
        run.add(f"{path}:input.x", torch.full((2, 4), values.get("given", 1.0)), role="input")
    for path in reversed(modules):
        run.add(
            f"{path}:output", torch.full((2, 4), values.get(path or "root", 2.0)), role="output"
        )
    return run


def tree(*modules: str) -> Tree:
    return tree_of(run_of(*modules))


def test_blocks_are_isolated_and_what_stands_beside_them() -> None:
    """What holds numbered blocks is opened, a block is taken whole, containers are no modules."""
    made = tree("", "model", "model.embed", "model.layers.0", "model.layers.0.mlp", "model.layers.1",
                "model.layers.1.mlp", "model.norm", "head")  # fmt: skip
    chosen = [one.path for one in frontier(made)]
    assert chosen == ["model.embed", "model.layers.0", "model.layers.1", "model.norm", "head"]
    block = made.get("model.layers.1")
    assert block is not None and inside([block]) == {"model.layers.1", "model.layers.1.mlp"}
    assert block.parent is made.get("model")


def test_a_model_without_blocks_is_opened_once() -> None:
    """The outermost module itself is never isolated while it has children."""
    assert [one.path for one in frontier(tree("", "a", "a.b", "c"))] == ["a", "c"]
    assert [one.path for one in frontier(tree(""))] == [""]


@given(PATHS)
def test_nothing_isolated_lies_inside_another(parts: list[list[str]]) -> None:
    """Whatever the names: a parent and its child are never isolated in one pass, no leaf is left out."""
    paths = ["", *dict.fromkeys(".".join(one) for one in parts)]
    made = tree(*paths)
    front = frontier(made)
    reached = inside(front)
    for one in front:
        assert not any(above.path in {other.path for other in front} for above in one.above())
    assert all(one.path in reached for one in made if one.leaf)


@given(st.lists(st.text(alphabet="ab.\"\\'*", min_size=1), min_size=1, max_size=5))
def test_a_filter_takes_what_it_names(modules: list[str]) -> None:
    """Names are quoted, so that no name can end the filter or widen it."""
    taken = parse_filter(boundaries(modules, "input", "output"))
    for name in modules:
        facts = {"module": name, "role": "input", "kind": "activation", "name": f"{name}:input.x"}
        assert taken(facts)
        assert not taken({**facts, "kind": "gradient"})
        assert not taken({**facts, "module": name + "x"} if name + "x" not in modules else {})
    assert parse_filter(points(modules))({"name": modules[0]})
    assert either("", boundaries([], "input"), points([])) == ""


def test_layouts_that_comparing_inferred(tmp_path: Path) -> None:
    """A sharded point is written for both sides, by the baseline's name; what is stated is left alone."""
    whole, one, two = torch.randn(2, 8), MemoryRun(), MemoryRun()
    one.add("a:output", whole)
    for rank in range(2):
        two.add("a:output", whole[:, 4 * rank : 4 * rank + 4], rank=rank, mesh={"tp": (rank, 2)})
    path = write_layouts(compare(one, two), tmp_path / "layouts.json")
    told = json.loads(Path(path).read_text())
    assert told == {"baseline": {"a:output": "d0 d1"}, "target": {"a:output": "d0 d1[tp]"}}
    assert write_layouts(compare(one, one), tmp_path / "none.json") == ""


def test_names_of_the_other_run(tmp_path: Path) -> None:
    """A file of names comes back as it was written; anything else is refused."""
    path = write_aliases({"a:input.x": "a:input.input"}, tmp_path / "names.json")
    assert read_aliases(path) == {"a:input.x": "a:input.input"}
    assert write_aliases({}, tmp_path / "none.json") == "" and read_aliases("") == {}
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(ValueError, match="no JSON object"):
        read_aliases(str(tmp_path / "bad.json"))


@pytest.mark.parametrize(
    ("apart", "spread", "expected"),
    [
        (1e-3, False, "differs"),  # the shadows differ: another function, however small
        (2.5e-7, False, "undecided"),
        (1e-8, False, "rounds elsewhere"),  # the same function, other bits than its own rounding
        (1e-8, True, "clean"),  # its weights lie over ranks: sums are rounded elsewhere by right
    ],
)
def test_what_the_shadows_decide(apart: float, spread: bool, expected: str) -> None:
    """Two shadows one precision up tell another function from rounding in other places."""
    shadow = Shadow("float32", 3e-3, 3e-3, apart, 1e-7)
    assert settle("undecided", 2.5e-3, shadow, spread, "bfloat16") == expected


def test_a_shadow_of_one_side_decides_nothing() -> None:
    """Without the baseline's shadow the state stays what it was."""
    shadow = Shadow("float32", 3e-3, 3e-3, None, 1e-7)
    assert settle("undecided", 2.5e-3, shadow, False, "bfloat16") == "undecided"
    assert settle("clean", 2.5e-3, shadow, False, "bfloat16") == "undecided", (
        "more than an accident"
    )
    assert settle("clean", 2.5e-3, shadow, True, "bfloat16") == "clean"
    assert settle("clean", 1e-4, shadow, False, "bfloat16") == "clean"


def test_inputs_that_follow_from_a_difference_are_no_root() -> None:
    """Generated tokens differ because the model does: only what differs before everything else counts."""
    made = tree("", "a")
    same, other = run_of("", "a"), run_of("", "a", given=3.0)
    assert [row.name for row in unequal_inputs(compare(same, other), made)] == [":input.x"]
    late, later = run_of("", "a"), run_of("", "a", a=9.0)
    for run, value in ((late, 1.0), (later, 7.0)):
        run.add(":input.x", torch.full((2, 4), value), role="input", step=1)
    assert unequal_inputs(compare(late, later), made) == ()


def test_exit_codes() -> None:
    """Rounding alone is undecided for a script; a fault is not."""
    result = compare(run_of(""), run_of(""))
    codes = {
        "clean": 0, "undecided": 3, "inputs differ": 1, "nothing": 2,
    }  # fmt: skip
    for outcome, code in codes.items():
        assert Finding(outcome, result).exit_code == code  # type: ignore[arg-type]
    rounding = Suspect("a", "A", "a:output", "rounding")
    assert Finding("blamed", result, (rounding,)).exit_code == 3
    fault = Suspect("b", "B", "b:output", "module")
    assert Finding("blamed", result, (rounding, fault)).exit_code == 1


def router(scores: torch.Tensor, *, told: bool) -> MemoryRun:
    """One call of a router: given floats, it gives indices, weights and, where told, its scores."""
    run = MemoryRun()
    run.add("gate:input.x", torch.ones(64, 4), role="input", begun=1, order=2)
    top = scores.topk(2, -1)
    outputs = [scores] if told else []
    for at, value in enumerate([*outputs, top.values.softmax(-1), top.indices]):
        run.add(f"gate:output.{at}", value, role="output", begun=1, order=10 + at)
    return run


@pytest.mark.parametrize("told", [True, False])
def test_a_tipped_choice_is_no_fault(told: bool) -> None:
    """A router whose scores lie closer than rounding in one row chooses otherwise there: undecided."""
    scores = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    scores[5, :3] = torch.tensor([4.0, 3.0, 3.0000002])
    other = scores.clone()
    other[5, 1] += 1e-6
    one, two = router(scores, told=told), router(other, told=told)
    made = tree_of(one).get("gate")
    assert made is not None
    found = Weighing(one, two).outputs(made)
    assert found[-1].measured == "undecided" and found[-1].reason == "tie"
    wrong = router(scores.flip(-1), told=told)
    assert Weighing(one, wrong).outputs(made)[-1].measured == "differs"


def test_a_module_that_is_called_more_often_is_part_of_the_one_around_it() -> None:
    """Its first call has no partner, whatever its shape; what it holds goes with it. Other steps say nothing."""
    whole = run_of("m", "m.mlp", "m.mlp.gate", "m.norm")
    parts = run_of("m", "m.mlp", "m.mlp.gate", "m.norm")
    parts.add("m.mlp.gate:output", torch.ones(2, 4), role="output", occurrence=1)
    parts.add("m.norm:output", torch.ones(2, 4), role="output", step=1)
    assert called_otherwise(whole, whole) == {}
    found = called_otherwise(whole, parts)
    assert found == {"m.mlp.gate": (1, 2)}
    assert [one.path for one in tree_of(whole, but=found)] == ["m", "m.mlp", "m.norm"]
    left = tree_of(whole, but={"m", "m.mlp"})
    assert [one.path for one in left] == ["m", "m.mlp.gate", "m.norm"], "an outermost one stays"


def test_a_module_that_the_target_never_calls_is_part_of_the_one_around_it() -> None:
    """It was left out, or renamed: the code around it answers."""
    assert called_otherwise(run_of("m", "m.a", "m.b"), run_of("m", "m.b")) == {"m.a": (1, 0)}
