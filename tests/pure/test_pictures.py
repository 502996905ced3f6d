"""Pictures of points: what they hold is what the tensors say, and how many there are is bounded."""

from __future__ import annotations

import math

import pytest
import torch
from memory_run import MemoryRun

from twinrun import compare
from twinrun.comparison import painting, picturing
from twinrun.comparison.picture import Picture
from twinrun.comparison.picturing import choose, pictures

NAME = "model.layers.0.mlp:output"


def pair(
    a: torch.Tensor, b: torch.Tensor, parts: int = 1, dims: str | None = None
) -> tuple[MemoryRun, MemoryRun]:
    """A baseline on one rank, and a target cut along its last dim over ``parts`` ranks."""
    one, two = MemoryRun("runs/a"), MemoryRun("runs/b")
    one.add(NAME, a)
    for rank, part in enumerate(b.chunk(parts, -1)):
        two.add(NAME, part.contiguous(), rank=rank, dims=dims, mesh={"tp": (rank, parts)})
    return one, two


def drawn(a: torch.Tensor, b: torch.Tensor, parts: int = 1) -> Picture:
    runs = pair(a, b, parts)
    return pictures(compare(*runs), *runs).drawn[1]


def wrong_at(shape: tuple[int, ...], index: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    a = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    b = a.clone()
    b[index] += 50
    return a, b


def test_the_map_shows_where() -> None:
    """One wrong element is the only cell with an error, in its row and column of bins."""
    held = drawn(*wrong_at((4, 64, 256), (2, 10, 200)))
    hot = [(y, x) for y, row in enumerate(held.heat.cells) for x, v in enumerate(row) if v]
    assert (held.heat.rows, held.heat.columns) == (256, 256)
    assert hot == [((2 * 64 + 10) * 64 // 256, 200 * 64 // 256)]


def test_every_element_is_counted_once() -> None:
    """Histogram, zeros and non-finite together are the elements, whatever the shape and the slices."""
    for shape in ((3,), (1,), (7, 5), (3, 1000, 130), (2, (1 << 20) + 3)):
        a = torch.rand(shape) + 1  # never zero: 1.01 times zero would be equal
        b = a * 1.01
        b.view(-1)[1:2] = a.view(-1)[1:2]
        held = drawn(a, b)
        counted = sum(held.histogram.counts)
        assert counted + held.histogram.zeros + held.histogram.nonfinite == a.numel() == held.looked_at  # fmt: skip
        assert held.histogram.zeros == min(1, a.numel() - 1)


def test_the_worst_element_is_the_comparisons() -> None:
    """The first of the worst elements is the one that compare names, with the same figure."""
    runs = pair(*wrong_at((8, 32, 96), (5, 7, 3)))
    result = compare(*runs)
    worst = pictures(result, *runs).drawn[1].worst
    assert result.rows[0].measures is not None and result.rows[0].measures.worst is not None
    assert worst[0].index == result.rows[0].measures.worst.index == (5, 7, 3)
    assert worst[0].error == pytest.approx(result.rows[0].measures.worst.value, rel=1e-5)


def test_nonfinite_on_one_side_is_endless_and_on_both_is_none() -> None:
    """NaN on one side is an endless error; the same NaN on both sides is no error."""
    a = torch.randn(4, 64)
    b = a.clone()
    a[1, 3] = b[1, 3] = math.nan
    b[2, 5] = math.nan
    held = drawn(a, b)
    assert held.histogram.nonfinite == 1
    assert held.heat.cells[2][5] == math.inf
    assert held.heat.cells[1][3] == 0
    assert held.worst[0].index == (2, 5)


def test_ranks_are_drawn_against_their_own_part() -> None:
    """Of a sharded target only the rank with the wrong element errs, and says which part it holds."""
    held = drawn(*wrong_at((4, 16, 64), (1, 2, 40)), parts=4)
    assert [rank.rank for rank in held.ranks] == [0, 1, 2, 3]
    assert [rank.relative_l2 > 0 for rank in held.ranks] == [False, False, True, False]
    assert held.ranks[2].held == "[:, :, 32:48]"
    assert held.rank_side == "target"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64, torch.int64, torch.bool, torch.float8_e4m3fn])  # fmt: skip
def test_every_dtype_has_a_picture(dtype: torch.dtype) -> None:
    """Whatever the type, a difference is drawn where it is."""
    a = torch.ones(8, 64).to(dtype)
    b = a.clone().float() if dtype != torch.complex64 else a.clone()
    b[3, 9] = 0
    held = drawn(a, b.to(dtype))
    assert held.worst[0].index == (3, 9)
    assert held.heat.cells[3][9] > 0


def test_a_large_tensor_is_sampled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit evenly spaced parts are looked at, and the picture knows how many."""
    monkeypatch.setattr(picturing, "LARGEST", 1 << 12)
    monkeypatch.setattr(picturing, "_SAMPLE", 1 << 8)
    held = drawn(torch.zeros(256, 64) + 1, torch.zeros(256, 64) + 2)
    assert held.elements == 256 * 64
    assert held.looked_at == 1 << 12
    assert len(held.heat.cells) == painting.BINS


def test_there_are_never_more_than_the_limit() -> None:
    """The first divergence and the worst point come first; the limit holds; equal points are left out."""
    one, two = MemoryRun("runs/a"), MemoryRun("runs/b")
    for at in range(30):
        a = torch.randn(4, 64)
        one.add(f"model.layers.{at}:output", a)
        two.add(f"model.layers.{at}:output", a if at < 10 else a + (3.0 if at == 25 else 1.0))
    result = compare(one, two)
    held = pictures(result, one, two, limit=5)
    assert len(held.drawn) == 5 == len(choose(result, 5))
    assert {11, 26} <= set(held.drawn)
    assert min(held.drawn) == 11


def test_statistics_have_no_picture_and_say_why() -> None:
    """What cannot be drawn is refused with a reason, never with an error."""
    a, b = wrong_at((4, 64), (1, 2))
    one, two = pair(a, b)
    result = compare(one, two)
    other = MemoryRun("runs/b")
    other.add(NAME, b, has_payload=False)
    assert pictures(result, one, other).refused[1] == "a side holds statistics only"
