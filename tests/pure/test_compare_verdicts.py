"""What `compare` says of single points, of their order and of the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_run import MemoryRun

from twinrun import compare
from twinrun.comparison.result import Row
from twinrun.errors import UsageError
from twinrun.recorder.record import RootInfo


def runs(
    a: torch.Tensor, b: torch.Tensor, name: str = "model.layers.0:output", **given: object
) -> tuple[MemoryRun, MemoryRun]:
    one, two = MemoryRun("runs/a"), MemoryRun("runs/b")
    one.add(name, a, **given)
    two.add(name, b, **given)
    return one, two


def row_of(a: torch.Tensor, b: torch.Tensor, **given: object) -> Row:
    return compare(*runs(a, b, **given)).rows[0]


def noisy(
    shape: tuple[int, ...], scale: float, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    a = torch.randn(shape)
    return a.to(dtype), (a + scale * torch.randn(shape)).to(dtype)


def test_equal_bits() -> None:
    """The same bits are equal and exit 0."""
    a, _ = noisy((4, 64), 0)
    result = compare(*runs(a, a.clone()))
    assert (result.rows[0].verdict, result.verdict, result.exit_code) == ("equal", "agree", 0)


def test_rounding_is_close() -> None:
    """Rounding noise of one block in float32 and in bfloat16 is close."""
    assert row_of(*noisy((64, 256), 1e-7)).verdict == "close"
    assert row_of(*noisy((64, 256), 2e-3, torch.bfloat16)).verdict == "close"


@pytest.mark.parametrize("layer", [0, 3, 79])
@pytest.mark.parametrize("width", [64, 4096, 1 << 17])
def test_a_thousandth_is_never_close(layer: int, width: int) -> None:
    """A uniform factor of 1.001 in float32 is not close, however deep and however long the sums."""
    one, two = MemoryRun(), MemoryRun()
    torch.manual_seed(0)
    for at in range(layer + 1):
        a = torch.randn(2, 64)
        for run, factor in ((one, 1.0), (two, 1.001 if at == layer else 1.0)):
            run.add(f"layers.{at}:output", a * factor, reduction=width)
    assert compare(one, two).rows[-1].verdict in ("undecided", "differs")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_wrong_row_is_never_close(dtype: torch.dtype) -> None:
    """One wrong row among thousands is no rounding, though it hardly moves the L2."""
    a = torch.randn(8192, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    b = a.clone()
    b[5000] = a[4999]
    row = row_of(a, b, name="layers.31:output")
    assert row.verdict == "differs"
    assert row.hint is not None and row.hint.kind == "region" and "5000" in row.hint.text


def test_shape_and_dtype() -> None:
    """Other shapes differ; other dtypes are judged by the coarser one and never equal."""
    a = torch.randn(4, 64)
    row = row_of(a, a[:3])
    assert (row.verdict, row.reason) == ("differs", "shape")
    row = row_of(a, a.bfloat16())
    assert row.verdict == "close" and "coarser" in row.notes[0]


def test_integers_are_exact() -> None:
    """An integer that is off by one differs, with the index."""
    a = torch.arange(1000)
    b = a.clone()
    b[17] += 1
    row = row_of(a, b)
    assert row.verdict == "differs" and row.measures is not None
    assert row.measures.max_abs is not None and row.measures.max_abs.index == (17,)
    assert row.measures.differing == 1


def test_nan_on_one_side() -> None:
    """A NaN on one side differs, whatever the rest; on both sides at one place it is equal there."""
    a = torch.randn(4, 64)
    b = a.clone()
    b[2, 3] = float("nan")
    result = compare(*runs(a, b))
    assert (result.rows[0].verdict, result.rows[0].reason) == ("differs", "nonfinite")
    assert [(i.kind, i.side) for i in result.invariants] == [("nonfinite", "target")]
    assert compare(*runs(b, b.clone())).rows[0].verdict == "equal"


def test_masks_may_hold_infinities() -> None:
    """An Inf that both runs hold at the same place breaks no invariant; a NaN always does."""
    mask = torch.full((4, 64), float("-inf")).triu()
    assert compare(*runs(mask, mask.clone())).exit_code == 0
    nan = torch.full((4, 64), float("nan"))
    assert compare(*runs(nan, nan.clone())).exit_code == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-8, 1e-6, 1e-3, 1.0]))
def test_symmetric(seed: int, scale: float) -> None:
    """Exchanging baseline and target changes no verdict."""
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(3, 70, generator=rng)
    b = a + scale * torch.randn(3, 70, generator=rng)
    one, two = row_of(a, b), row_of(b, a)
    assert (one.verdict, one.ratio) == (two.verdict, two.ratio)


def test_first_divergence_in_execution_order() -> None:
    """The first point that differs is told with the last ones that agreed before it."""
    one, two = MemoryRun(), MemoryRun()
    for at, factor in enumerate((1.0, 1.0, 2.0, 3.0)):
        a = torch.randn(4, 64)
        one.add(f"layers.{at}:output", a)
        two.add(f"layers.{at}:output", a * factor)
    result = compare(one, two)
    assert result.first is not None and result.exit_code == 1
    assert result.first.row.name == "layers.2:output" and result.first.agreed == 2
    assert [row.name for row in result.first.last_agreed] == ["layers.0:output", "layers.1:output"]
    assert any("blame" in line for line in result.advice)


def test_unmatched_names_the_nearest() -> None:
    """A point without a partner is unmatched, with the nearest name of the other side."""
    one, two = MemoryRun(), MemoryRun()
    one.add("model.layers.0.mlp:output", torch.ones(2))
    two.add("model.layer.0.mlp:output", torch.ones(2))
    one.add("x", torch.ones(2))
    two.add("x", torch.ones(2))
    result = compare(one, two)
    told = {row.name: row.nearest for row in result.rows if row.verdict == "unmatched"}
    assert told["model.layers.0.mlp:output"] == "model.layer.0.mlp:output"
    assert result.exit_code == 1


def test_no_pairs_is_no_work() -> None:
    """Without a single pair the exit code is 2."""
    one, two = MemoryRun(), MemoryRun()
    one.add("a", torch.ones(2))
    two.add("b", torch.ones(2))
    assert compare(one, two).exit_code == 2
    assert compare(MemoryRun(), MemoryRun()).exit_code == 2


def test_allow_floor_and_k() -> None:
    """Globs allow a difference, set a floor, or set K; a wrong value is refused."""
    a, b = noisy((8, 64), 1e-3)
    assert compare(*runs(a, b)).exit_code == 1
    assert compare(*runs(a, b), allow=["model.*"]).rows[0].verdict == "allowed"
    row = compare(*runs(a, b), floor={"model.*": 2e-3}).rows[0]
    assert row.verdict == "close" and row.floor is not None and row.floor.kind == "set"
    assert compare(*runs(a, b), k=1e9).exit_code == 3
    with pytest.raises(UsageError):
        compare(*runs(a, b), floor={"x": -1.0})


def test_undecided_tail_names_noise() -> None:
    """Where everything from some point on is undecided, that point and --noise are named."""
    one, two = MemoryRun(), MemoryRun()
    for at in range(6):
        a, b = noisy((16, 64), 1.5e-6 if at > 1 else 0.0)
        one.add(f"layers.{at}:output", a)
        two.add(f"layers.{at}:output", b)
    result = compare(one, two)
    assert result.exit_code == 3 and result.undecided_from is not None
    assert result.undecided_from.name == "layers.2:output"
    assert any("--noise" in line for line in result.advice)


def test_noise_measures_the_floor() -> None:
    """A second good run sets the floor; one with the same bits measures nothing and says so."""
    a, b = noisy((16, 64), 1e-5)
    _, c = noisy((16, 64), -1e-5)
    result = compare(*runs(a, b), noise=runs(a, c)[1])
    assert result.rows[0].verdict == "close"
    assert result.rows[0].floor is not None and result.rows[0].floor.kind == "measured"
    same = compare(*runs(a, b), noise=runs(a, a)[1])
    assert same.rows[0].floor is not None and same.rows[0].floor.kind == "first-order"
    assert any("measures nothing" in line for line in same.problems)


def test_steps_can_be_skipped() -> None:
    """Skipped steps are dropped on their side and the rest pairs from there."""
    one, two = MemoryRun(), MemoryRun()
    for step in range(3):
        two.add("layers.0:output", torch.full((2, 64), float(step)), step=step)
    for step in range(2):
        one.add("layers.0:output", torch.full((2, 64), float(step + 1)), step=step)
    assert compare(one, two).exit_code == 1
    assert compare(one, two, skip_steps=(0, 1)).exit_code == 0


def test_recomputed_pairs_with_forward() -> None:
    """A recomputed point pairs with the other run's recompute, else with its forward."""
    one, two = MemoryRun(), MemoryRun()
    a = torch.randn(2, 64)
    one.add("layers.0:output", a)
    for recompute in (False, True):
        two.add("layers.0:output", a, recompute=recompute)
    result = compare(one, two)
    assert result.exit_code == 0 and result.counts["equal"] == 2


def test_roots_pair_by_class() -> None:
    """One root pairs whatever its label; several pair by class, then ordinal."""
    one = MemoryRun(roots=(RootInfo("", "Actor"), RootInfo("Critic", "Critic")))
    two = MemoryRun(roots=(RootInfo("", "Critic"), RootInfo("Actor", "Actor")))
    actor, critic = torch.randn(2, 64), torch.randn(2, 64)
    one.add("layers.0:output", actor, root=0)
    one.add("Critic.layers.0:output", critic, root=1, module="Critic.layers.0")
    two.add("layers.0:output", critic, root=0)
    two.add("Actor.layers.0:output", actor, root=1, module="Actor.layers.0")
    result = compare(one, two)
    assert result.counts["equal"] == 2 and result.exit_code == 0


def test_positional_and_named_inputs_pair() -> None:
    """An input that one run knows by position only pairs with the same call's only other input."""
    one, two = MemoryRun(), MemoryRun()
    one.add("lm_head:input.input", torch.ones(2, 64))
    two.add("lm_head:input.0", torch.ones(2, 64))
    assert compare(one, two).exit_code == 0
