"""Blame on real processes: planted faults are named and proven, right runs are not blamed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from twinrun.diagnosis.blame import blame
from twinrun.diagnosis.finding import Finding
from twinrun.diagnosis.options import Wishes
from twinrun.diagnosis.passes import Passes, Program
from twinrun.errors import CaptureError, TwinrunError
from twinrun.recorder.options import Options

PROGRAM = str(Path(__file__).with_name("blamed.py"))
PLAIN = Wishes(operators=False)

pytestmark = pytest.mark.timeout(300)


def program(*options: str, ranks: int = 1) -> Program:
    spread = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    launcher = [*spread, str(ranks)] if ranks > 1 else [sys.executable]
    return Program((*launcher, PROGRAM, *options), mesh=f"tp={ranks}" if ranks > 1 else "")


def blamed(
    tmp_path: Path,
    *options: str,
    ranks: int = 1,
    both: tuple[str, ...] = (),
    wishes: Wishes = PLAIN,
    live: bool = False,
) -> Finding:
    told: list[str] = []
    target = program(*both, *options, ranks=ranks)
    passes = Passes(program(*both), target, tmp_path / "work", told.append, live=live)
    found = blame(passes, wishes)
    assert len(told) == len(found.passes), "each pass is named before it starts"
    return found


def named(found: Finding) -> list[tuple[str, str]]:
    return [(one.module, one.fault) for one in found.suspects]


def test_a_module_is_named_and_healed(tmp_path: Path) -> None:
    """A leaf that computes something else is named, nothing else is, and its output heals the run."""
    found = blamed(tmp_path, "--fault", "gelu@1")
    assert named(found) == [("blocks.1.act", "module")]
    assert found.proof.state == "healed"
    assert found.exit_code == 1
    assert len(found.passes) <= 6
    part = found.suspects[0].part
    assert part is not None and part.how == "grafted" and part.times is not None and part.times > 4
    assert all(one.state == "clean" for one in found.parts if not one.module.startswith("blocks.1"))


def test_code_between_modules_is_named_as_that(tmp_path: Path) -> None:
    """A wrong scale lies between a module's children: the module's own code is named, not a child."""
    found = blamed(tmp_path, "--fault", "scale@2")
    assert named(found) == [("blocks.2.mix", "own code")]
    assert found.suspects[0].name == "blocks.2.mix:output"
    assert found.proof.state == "healed"


def test_every_fault_is_listed(tmp_path: Path) -> None:
    """Two faults, one of them behind the other's damage, are both found in the passes of one."""
    found = blamed(tmp_path, "--fault", "residual@0", "--fault", "gelu@1")
    assert named(found) == [("blocks.0", "own code"), ("blocks.1.act", "module")]
    assert found.proof.state == "healed"
    later = found.suspects[1].part
    assert later is not None and later.inherited is not None
    assert later.inherited.verdict == "differs", "the split of what is added from what is inherited"


def test_a_weight_is_no_module(tmp_path: Path) -> None:
    """A wrong weight is reported as that weight; the module that holds it is not blamed."""
    found = blamed(tmp_path, "--fault", "weight@1")
    assert named(found) == [("blocks.1.mix.value", "parameter")]
    assert found.suspects[0].name == "blocks.1.mix.value.weight:parameter"
    assert found.proof.state == "healed"


def test_a_weight_does_not_hide_a_module(tmp_path: Path) -> None:
    """With the weight put right the run still differs: the search goes on to the module."""
    found = blamed(tmp_path, "--fault", "weight@0", "--fault", "scale@2")
    assert named(found) == [
        ("blocks.0.mix.value", "parameter"),
        ("blocks.2.mix", "own code"),
    ]
    assert found.proof.state == "healed"


def test_nothing_is_blamed_in_equal_runs(tmp_path: Path) -> None:
    """Equal runs end after two passes with exit code 0."""
    found = blamed(tmp_path)
    assert found.outcome == "clean" and found.exit_code == 0 and len(found.passes) == 2


def test_unequal_inputs_stop_it(tmp_path: Path) -> None:
    """Programs that feed themselves other tokens: the input is named and nothing is blamed."""
    found = blamed(tmp_path, "--input-seed", "2")
    assert found.outcome == "inputs differ" and found.exit_code == 1
    assert [row.name for row in found.roots] == [":input.tokens"]
    assert not found.suspects and len(found.passes) == 2


def test_a_missing_all_reduce_over_two_ranks(tmp_path: Path) -> None:
    """One process against two ranks: the layer that lacks its sum is named, with that as the hint."""
    found = blamed(tmp_path, "--fault", "reduce@1", ranks=2)
    assert named(found) == [("blocks.1.down", "module")]
    hint = found.suspects[0].hint
    assert hint is not None and hint.kind == "partial sum"
    assert found.proof.state == "healed"


def test_right_ranks_are_not_blamed(tmp_path: Path) -> None:
    """Sums split over ranks round in other places, in bfloat16 visibly: no blame."""
    found = blamed(tmp_path, ranks=2, both=("--dtype", "bfloat16"), wishes=Wishes(shadows="all"))
    assert found.outcome == "clean", [(one.module, one.state, one.why) for one in found.parts]


def test_live_and_from_a_capture_say_the_same(tmp_path: Path) -> None:
    """Two jobs in step, and a capture in the baseline's place, name the same module."""
    live = blamed(tmp_path, "--fault", "gelu@1", live=True)
    capture = tmp_path / "work" / "1-baseline"
    passes = Passes(
        None, program("--fault", "gelu@1"), tmp_path / "again", lambda line: None, capture
    )
    offline = blame(passes, PLAIN)
    assert named(live) == named(offline) == [("blocks.1.act", "module")]
    assert live.proof.state == offline.proof.state == "healed"
    assert len(offline.passes) == len(live.passes) - 1


def test_a_capture_without_inputs_is_refused(tmp_path: Path) -> None:
    """Outputs alone cannot be given to anyone: the error says how to record the baseline."""
    passes = Passes(program(), program(), tmp_path / "one", lambda line: None)
    capture = passes.plain("baseline", "outputs only", Options(taps="*:output"))
    again = Passes(None, program(), tmp_path / "two", lambda line: None, capture)
    with pytest.raises(CaptureError, match="inputs"):
        blame(again, PLAIN)


def test_a_program_that_fails_is_told(tmp_path: Path) -> None:
    """What the program printed is in the error, with the pass and the file that holds all of it."""
    with pytest.raises(TwinrunError) as caught:
        blamed(tmp_path, "--fail")
    assert "pass 2" in str(caught.value) and "the program itself fails" in str(caught.value)


def test_rounding_in_another_place_is_told_as_that(tmp_path: Path) -> None:
    """A norm that casts last is the same function: named, with exit code 3 and rounding as the hint."""
    found = blamed(
        tmp_path,
        "--fault",
        "cast@1",
        both=("--dtype", "bfloat16"),
        wishes=Wishes(shadows="all", operators=False),
    )
    assert named(found) == [("blocks.1.norm", "rounding")]
    assert found.exit_code == 3 and found.proof.state == "healed"


def test_a_fault_below_bfloat16_shows_one_precision_up(tmp_path: Path) -> None:
    """An epsilon whose effect is below bfloat16's rounding differs between the shadows."""
    found = blamed(
        tmp_path,
        "--fault",
        "eps@1",
        both=("--dtype", "bfloat16"),
        wishes=Wishes(shadows="all", operators=False),
    )
    assert named(found) == [("blocks.1.norm", "module")]
    assert found.proof.state == "healed"


def test_a_right_rewrite_is_not_blamed(tmp_path: Path) -> None:
    """A layer that does the same sums in pieces is not blamed, whatever is asked."""
    found = blamed(tmp_path, "--fault", "chunks@1", wishes=Wishes(shadows="all"))
    assert found.outcome == "clean" and not found.suspects


def test_a_gradient_of_a_weight(tmp_path: Path) -> None:
    """The loss is identical, one weight's gradient is halved: that gradient is named, with the factor."""
    wishes = Wishes(gradients=True)
    found = blamed(tmp_path, "--fault", "gradient@1", both=("--backward",), wishes=wishes)
    assert named(found) == [("blocks.1.norm", "gradient")]
    assert found.suspects[0].name == "blocks.1.norm.weight:parameter.grad"
    hint = found.suspects[0].hint
    assert hint is not None and hint.kind == "factor"
    assert found.proof.state == "healed"


def test_a_wrong_backward_of_a_module(tmp_path: Path) -> None:
    """A module that sends back half of its gradient is named, not those that were computed from it."""
    wishes = Wishes(gradients=True)
    found = blamed(tmp_path, "--fault", "backward@1", both=("--backward",), wishes=wishes)
    assert named(found) == [("blocks.1.act", "gradient")]
    assert found.suspects[0].name == "blocks.1.act:input.input:grad.own"
    assert found.proof.state == "healed"


def test_a_right_backward_is_not_blamed(tmp_path: Path) -> None:
    """The MLP split over two ranks: its gradients agree, nothing is blamed."""
    found = blamed(tmp_path, ranks=2, both=("--backward",), wishes=Wishes(gradients=True))
    assert found.outcome == "clean", [row.name for row in found.comparison.rows if not row.agrees]


def test_a_port_that_names_its_argument_otherwise(tmp_path: Path) -> None:
    """The only argument of a call is the same one whatever it is called: grafted, isolated, blamed."""
    found = blamed(tmp_path, "--fault", "renamed@1")
    assert named(found) == [("blocks.1.down", "module")]
    hint = found.suspects[0].hint
    assert hint is not None and hint.kind == "factor"
    assert found.proof.state == "healed"
