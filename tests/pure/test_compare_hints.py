"""A hint names what explains a difference, and is told only if it explains it down to the floor."""

from __future__ import annotations

import pytest
import torch
from memory_run import MemoryRun

from twinrun import compare
from twinrun.comparison.result import Hint, Row


def row_of(a: torch.Tensor, b: torch.Tensor | dict[int, torch.Tensor], **given: object) -> Row:
    one, two = MemoryRun(), MemoryRun()
    one.add("layers.0:output", a)
    for rank, held in (b if isinstance(b, dict) else {0: b}).items():
        two.add("layers.0:output", held, rank=rank, **given)
    row = compare(one, two).rows[0]
    assert row.verdict == "differs"
    return row


def hint_of(a: torch.Tensor, b: torch.Tensor | dict[int, torch.Tensor], **given: object) -> Hint:
    found = row_of(a, b, **given).hint
    assert found is not None
    return found


@pytest.fixture
def a() -> torch.Tensor:
    return torch.randn(4, 16, 128, generator=torch.Generator().manual_seed(0))


def noise(a: torch.Tensor) -> torch.Tensor:
    return a * (1 + 1e-7 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1)))


def test_factor(a: torch.Tensor) -> None:
    """A constant factor is told with what it probably is."""
    hint = hint_of(a, noise(a * 8.0))
    assert hint.kind == "factor" and "times 8 (8" in hint.text
    assert "1 over the square root of 80" in hint_of(a, noise(a / 80**0.5)).text


def test_half_on_every_rank_is_a_factor(a: torch.Tensor) -> None:
    """Ranks that each held a part of a sum would differ; an average taken for a sum is the same on all."""
    hint = hint_of(a, {0: a * 0.5, 1: a * 0.5})
    assert hint.kind == "factor" and "average over ranks" in hint.text
    part = torch.randn(a.shape, generator=torch.Generator().manual_seed(2))
    assert hint_of(a, {0: a - part, 1: part}).kind == "partial sum"


def test_sign(a: torch.Tensor) -> None:
    """A turned sign."""
    assert hint_of(a, noise(-a)).kind == "sign"


def test_offset() -> None:
    """Whole numbers that are off by one are told as that, not as a factor."""
    positions = torch.arange(12, 20).view(1, 8)
    hint = hint_of(positions, positions + 1)
    assert hint.kind == "offset" and "1 more" in hint.text
    assert hint_of(torch.tensor([[12]]), torch.tensor([[13]])).kind == "offset"


def test_a_bias_taken_twice() -> None:
    """The same row at every position is told; one row of eight that is another one is not explained by it."""
    torch.manual_seed(3)
    x, bias = torch.randn(2, 8, 32), torch.randn(32)
    hint = hint_of(x, x + bias)
    assert hint.kind == "offset" and "all 16 positions" in hint.text
    once = x + bias
    once[1, 7] += torch.randn(32)
    other = row_of(x, once).hint
    assert other is None or other.kind != "offset"
    few = row_of(x[0, :4], x[0, :4] + bias).hint
    assert few is None or few.kind != "offset"


def test_permuted_among_equal_columns() -> None:
    """A rotary table holds every column twice: halves against pairs are told all the same."""
    angles = torch.outer(torch.arange(16.0), torch.rand(8) + 0.1)
    halves, pairs = torch.cat([angles, angles], -1), angles.repeat_interleave(2, -1)
    hint = hint_of(halves.cos(), pairs.cos())
    assert hint.kind == "permuted" and "interleaves" in hint.text


def test_transposed(a: torch.Tensor) -> None:
    """Exchanged dims, in another shape, in a square one, or read back in the old shape."""
    assert hint_of(a, noise(a.transpose(1, 2).contiguous())).kind == "transposed"
    square = a[0, :, :16].contiguous()
    assert hint_of(square, noise(square.T.contiguous())).kind == "transposed"
    mixed = a.transpose(0, 1).reshape(a.shape)
    assert "read in the old shape" in hint_of(a, noise(mixed)).text


def test_shifted(a: torch.Tensor) -> None:
    """One position later along a dim."""
    hint = hint_of(a, noise(a.roll(1, dims=1)))
    assert hint.kind == "shifted" and "later along dim 1" in hint.text


def test_permuted(a: torch.Tensor) -> None:
    """Heads in another order, and rotary halves against interleaved pairs."""
    heads = a.view(4, 16, 4, 32)[:, :, [2, 0, 3, 1]].reshape(a.shape)
    hint = hint_of(a, noise(heads))
    assert hint.kind == "permuted" and "blocks of 32 in the order [2, 0, 3, 1]" in hint.text
    rotary = a.view(4, 16, 4, 2, 16).transpose(-1, -2).reshape(a.shape)
    assert (
        "interleaves" in hint_of(a, noise(rotary)).text
        and "each 32" in hint_of(a, noise(rotary)).text
    )


def test_region(a: torch.Tensor) -> None:
    """Only rows from a position on, one row, or a few."""
    b = a.clone()
    b[:, 11:] += 1
    assert "from 11 of 16" in hint_of(a, noise(b)).text
    b = a.clone()
    b[2] *= 1.5
    assert "position 2 of 4" in hint_of(a, noise(b)).text


def test_rounding(a: torch.Tensor) -> None:
    """Equal after rounding to a narrower type."""
    hint = hint_of(a, a.bfloat16().float())
    assert hint.kind == "rounding" and "bfloat16" in hint.text


def test_swapped(a: torch.Tensor) -> None:
    """The tensor of another point."""
    one, two = MemoryRun(), MemoryRun()
    b = a.flip(0) * 3
    for run, (gate, up) in ((one, (a, b)), (two, (b, noise(a)))):
        run.add("gate_proj:output", gate)
        run.add("up_proj:output", up)
    hint = compare(one, two).rows[0].hint
    assert hint is not None and hint.kind == "swapped" and "up_proj:output" in hint.text


def test_one_shard_wrong(a: torch.Tensor) -> None:
    """Of four shards only one differs."""
    parts = {rank: noise(part.contiguous()) for rank, part in enumerate(a.chunk(4, -1))}
    parts[2] = torch.randn_like(parts[2])
    meshes = {rank: {"tp": (rank, 4)} for rank in parts}
    one, two = MemoryRun(), MemoryRun()
    one.add("layers.0:output", a)
    for rank, part in parts.items():
        two.add("layers.0:output", part, rank=rank, mesh=meshes[rank], dims="b s h[tp]")
    hint = compare(one, two).rows[0].hint
    assert hint is not None and hint.kind == "one shard" and "rank 2" in hint.text


def test_missing_all_reduce(a: torch.Tensor) -> None:
    """Ranks whose sum is the baseline: differs, with the sum as the hint, when later points differ."""
    part = torch.randn_like(a)
    one, two = MemoryRun(), MemoryRun()
    one.add("layers.0.mlp:output", a)
    one.add("layers.1:output", a)
    for rank, held in enumerate((part, a - part)):
        two.add("layers.0.mlp:output", held, rank=rank, mesh={"tp": (rank, 2)})
        two.add("layers.1:output", a * 2, rank=rank, mesh={"tp": (rank, 2)})
    row = compare(one, two).rows[0]
    assert (row.verdict, row.reason) == ("differs", "partial sum")
    assert row.hint is not None and "all-reduce over tp is missing" in row.hint.text
    assert "inferred" in row.target.layout if row.target else False


def test_no_hint_where_nothing_explains(a: torch.Tensor) -> None:
    """Another random tensor has no hint; nor has a factor with an error above the floor beside it."""
    assert row_of(a, torch.randn_like(a)).hint is None
    assert row_of(a, a * 2 + 1e-3 * torch.randn_like(a)).hint is None


def test_only_the_first_are_explained_unless_all(a: torch.Tensor) -> None:
    """The first divergence and twenty more; all on request."""
    one, two = MemoryRun(), MemoryRun()
    for at in range(25):
        one.add(f"layers.{at}:output", a[0])
        two.add(f"layers.{at}:output", -a[0])
    assert sum(row.hint is not None for row in compare(one, two).rows) == 21
    assert sum(row.hint is not None for row in compare(one, two, hints="all").rows) == 25
