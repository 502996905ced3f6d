"""The first operator in which two runs of one module part: planted cases, and none that is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from observing import observing
from torch import nn
from torch.nn import functional as F

from twinrun.comparison.compare import compare
from twinrun.diagnosis import instruments
from twinrun.diagnosis.sequence import OperatorDifference, Unsettled, difference_of
from twinrun.recorder.reader import open_capture

Act = Callable[..., torch.Tensor]


class Runs(nn.Module):
    """A module whose code is a function of (x, mask, weight)."""

    def __init__(self, act: Act, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.act = act

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.act(x, mask, self.weight)


def held(
    path: Path, baseline: Act, target: Act, dtype: torch.dtype = torch.float32
) -> OperatorDifference | Unsettled:
    """What is said of two functions of the same inputs."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 8, 8).to(dtype), torch.randn(8).to(dtype)
    mask = torch.full((8, 8), -30.0).triu(1).to(dtype)
    for name, act in (("a", baseline), ("b", target)):
        with observing(path / name, operators="*") as recorder:
            joined = instruments.join(recorder)
            Runs(act, weight)(x, mask)
            joined.remove()
    result = compare(path / "a", path / "b")
    rows = [row for row in result.rows if ":op." in row.name]
    with_both = open_capture(path / "a"), open_capture(path / "b")
    return difference_of(*with_both, "", rows)


def attention(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    scores = x @ x.mT * 0.125 + mask
    return F.softmax(scores, -1) @ x


def attention_scaled(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    scores = x @ x.mT * 0.1087 + mask
    return F.softmax(scores, -1) @ x


def attention_mask_first(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    scores = (x @ x.mT + mask) * 0.125
    return F.softmax(scores, -1) @ x


def attention_unmasked(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.softmax(x @ x.mT * 0.125, -1) @ x


def attention_summed(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    scores = (x @ x.mT * 0.125 + mask).cumsum(-1)
    return F.softmax(scores, -1) @ x


def norm(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    kind, x = x.dtype, x.float()
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.5)
    return weight * x.to(kind)


def norm_bare(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    kind, x = x.dtype, x.float()
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))
    return weight * x.to(kind)


def norm_late_cast(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    kind, x = x.dtype, x.float()
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.5)
    return (weight * x).to(kind)


def rope(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    turned = torch.cat((-x[..., 4:], x[..., :4]), -1)
    return x * weight.cos() + turned * weight.sin()


def rope_other_half(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    turned = torch.cat((-x[..., :4], x[..., 4:]), -1)
    return x * weight.cos() + turned * weight.sin()


def rope_pairs(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    turned = torch.cat((-x[..., 1::2], x[..., ::2]), -1)
    return x * weight.cos() + turned * weight.sin()


def hidden(scale: float) -> Act:
    """Scores beside a mask so large that no difference of theirs shows in the sum."""

    def act(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.softmax(x @ x.mT * scale + mask * 1e37, -1) @ x

    return act


def two_ends(first: float) -> Act:
    """Two results, the second of which is right."""

    def act(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (x.cos() * first, x.sin() * 2.0)  # type: ignore[return-value]

    return act


def turned(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.exp().unflatten(-1, (2, 4)).transpose(-1, -2).flatten(-2)


PLANTED: dict[str, tuple[Act, Act, str, str, str]] = {
    "scale": (
        attention, attention_scaled, "mul", "argument",
        "softmax: its input is multiplied by 0.1087 where the baseline multiplies by 0.125",
    ),
    "mask before scale": (
        attention, attention_mask_first, "mul", "order",
        "mul by 0.125 comes after add of mask; the baseline has it before",
    ),
    "no mask": (attention, attention_unmasked, "add", "missing", "add of mask is missing before softmax"),
    "a further cumsum": (
        attention, attention_summed, "cumsum", "extra",
        "the target has a further cumsum before softmax",
    ),
    "gelu": (
        lambda x, mask, weight: F.gelu(x) * weight,
        lambda x, mask, weight: F.gelu(x, approximate="tanh") * weight,
        "gelu", "argument", "gelu: approximate='tanh' where the baseline has 'none'",
    ),
    "another activation": (
        lambda x, mask, weight: F.silu(x), lambda x, mask, weight: F.gelu(x),
        "gelu", "argument", "gelu where the baseline has silu",
    ),
    "no epsilon": (norm, norm_bare, "add", "missing", "add of 0.5 is missing before rsqrt"),
    "the other half": (
        rope, rope_other_half, "slice", "argument", "slice: start=0 where the baseline has 4",
    ),
    "pairs for halves": (
        rope, rope_pairs, "slice", "argument", "slice: step=2 where the baseline has 1",
    ),
    "the wrong operand": (
        lambda x, mask, weight: (x + weight) * mask.exp(),
        lambda x, mask, weight: (x + mask) * mask.exp(),
        "add", "argument", "add takes mask where the baseline takes weight",
    ),
    "nothing added at the end": (
        lambda x, mask, weight: x.exp() * 2 + weight, lambda x, mask, weight: x.exp() * 2,
        "add", "missing", "add of weight is missing",
    ),
    "drowned by a mask": (
        hidden(0.125), hidden(0.1087), "mul", "argument",
        "softmax: its input is multiplied by 0.1087 where the baseline multiplies by 0.125",
    ),
    "the first of two results": (
        two_ends(2.0), two_ends(2.5), "mul", "argument",
        "mul: its input is multiplied by 2.5 where the baseline multiplies by 2",
    ),
    "rearranged at the end": (
        lambda x, mask, weight: x.exp(), turned, "view", "extra",
        "the target rearranges what it computed (view, transpose, clone, unsafe_view), "
        "the baseline does not",
    ),
    "halved": (
        lambda x, mask, weight: x.exp() + weight, lambda x, mask, weight: x.exp() / 2 + weight,
        "div", "extra", "the target has a further div by 2 before add",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named(tmp_path: Path, name: str) -> None:
    """The operator, what is the matter with it, and the sentence."""
    baseline, target, operator, kind, text = PLANTED[name]
    found = held(tmp_path, baseline, target)
    assert isinstance(found, OperatorDifference), found
    assert (found.operator, found.kind, found.text) == (operator, kind, text)


def test_rounding_placed_elsewhere(tmp_path: Path) -> None:
    """In bfloat16 a conversion after the weight instead of before it is told, though all is close."""
    found = held(tmp_path, norm, norm_late_cast, torch.bfloat16)
    assert isinstance(found, OperatorDifference), found
    assert (found.operator, found.kind) == ("_to_copy", "order")
    assert found.text == (
        "conversion to bfloat16 comes after mul by weight; the baseline has it before"
    )


def other_implementation(x: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    scores = torch.einsum("bqd,bkd->bqk", x.div(4), x.div(2)).sub(mask, alpha=-1)
    scores = (scores - scores.amax(-1, keepdim=True)).exp()
    return torch.einsum("bqk,bkd->bqd", scores / scores.sum(-1, keepdim=True), x.mul(1.5))


SAME: dict[str, tuple[Act, Act]] = {
    "itself": (attention, attention),
    "factors first": (
        attention, lambda x, mask, weight: F.softmax((x * 0.125) @ x.mT + mask, -1) @ x,
    ),
    "sums turned around": (
        lambda x, mask, weight: x.exp() + mask + weight,
        lambda x, mask, weight: weight + mask + x.exp(),
    ),
    "independent parts exchanged": (
        lambda x, mask, weight: (lambda q, k: q @ k.mT)(x * weight, x + weight),
        lambda x, mask, weight: (lambda k, q: q @ k.mT)(x + weight, x * weight),
    ),
    "another implementation": (attention, other_implementation),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_the_same_function_is_not_accused(tmp_path: Path, name: str) -> None:
    """Equal maths in another order, or another implementation: no claim, and the reason."""
    found = held(tmp_path, *SAME[name])
    assert isinstance(found, Unsettled), found
    assert found.reason


def test_without_operators_nothing_is_claimed(tmp_path: Path) -> None:
    """A capture made without --operators holds no sequences."""
    for name in ("a", "b"):
        with observing(tmp_path / name):
            nn.Linear(2, 2)(torch.ones(1, 2))
    captures = open_capture(tmp_path / "a"), open_capture(tmp_path / "b")
    found = difference_of(*captures, "", [])
    assert found == Unsettled("one of the runs did not list this module's operators")
