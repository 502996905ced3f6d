"""The sums of ``AllReduce`` on CPU ranks: every odd case right, the same bits everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from world import run_ranks

from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.shared_memory import CHUNK_BYTES
from twinrun.collectives.sums import ordered_sum
from twinrun.errors import UsageError

pytestmark = pytest.mark.ranks

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
BACKENDS = ["shared_memory", "gloo"]


def _input(rank: int, numel: int, dtype: torch.dtype) -> torch.Tensor:
    """Wide-range numbers, so that another order gives other bits."""
    made = torch.Generator().manual_seed(1000 + rank)
    exponents = torch.randint(-8, 8, (numel,), generator=made).float()
    return (torch.randn(numel, generator=made) * torch.exp2(exponents)).to(dtype)


def _expected(size: int, numel: int, dtype: torch.dtype, order: str) -> torch.Tensor:
    """A plain loop: the order's definition, element by element of the group."""
    parts = [_input(rank, numel, dtype) for rank in range(size)]
    if order == "ranks":
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        total = parts[0].to(wide)
        for part in parts[1:]:
            total = total + part.to(wide)
        return total.to(dtype)
    while len(parts) > 1:
        paired = [a + b for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = paired + (parts[-1:] if len(parts) % 2 else [])
    return parts[0]


def _sums(rank: int, size: int, backend: str) -> list[tuple[str, bytes]]:
    """Every size, dtype and order; wrong bits raise here, and all ranks' bits go back."""
    told = []
    for order in ("ranks", "tree"):
        with AllReduce(order=order, backend=backend) as ar:
            for dtype in FLOATS:
                for numel in (1, 7, 1024, 33333, CHUNK_BYTES // dtype.itemsize + 5):
                    x = _input(rank, numel, dtype)
                    kept = x.clone()
                    y = ar(x)
                    name = f"{order} {dtype} {numel} {ar.plan(x).algorithm}"
                    assert torch.equal(x, kept), f"{name}: x was changed"
                    expected = _expected(size, numel, dtype, order)
                    assert torch.equal(y.view(torch.uint8), expected.view(torch.uint8)), name
                    assert ar(x, out=x) is x and torch.equal(x, y), f"{name}: in place"
                    told.append((name, y.view(torch.uint8).numpy().tobytes()[:64]))
    return told


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_sums_are_right_to_the_bit(size: int, backend: str) -> None:
    """In either order, for every dtype and size, in and out of place, with one result on all ranks."""
    results = run_ranks(size, _sums, backend)
    assert all(result == results[0] for result in results)


INTEGERS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]
OTHERS = [torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.float8_e4m3fn]


def _dtypes(rank: int, size: int, backend: str) -> None:
    with AllReduce(backend=backend) as ar:
        for dtype in (*INTEGERS, *OTHERS):
            for numel in (3, 1000):
                x = (torch.arange(numel) % 5 + rank).to(dtype)
                parts = [(torch.arange(numel) % 5 + r).to(dtype) for r in range(size)]
                wide = torch.complex128 if dtype is torch.complex64 else torch.float64
                expected = sum(part.to(wide) for part in parts).to(dtype)
                assert torch.equal(ar(x).to(wide), expected.to(wide)), (dtype, ar.plan(x))


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_dtypes_are_summed_too(backend: str) -> None:
    """Integers of any width and sign, complex numbers and float8, through whoever can."""
    run_ranks(2, _dtypes, backend)


def _odd(rank: int, size: int, backend: str) -> None:
    with AllReduce(backend=backend) as ar:
        empty = torch.empty(0, 3)
        assert ar(empty).shape == (0, 3) and ar.plan(empty).backend == "none"
        whole = torch.arange(12.0).view(3, 4) + rank
        expected = 2 * torch.arange(12.0).view(3, 4) + 1
        assert torch.equal(ar(whole.t()), expected.t())
        assert "contiguous copy" in ar.plan(whole.t()).reason
        strided = torch.zeros(4, 3).t()
        # One rank's tensor is not contiguous, the other's is: they must still meet.
        mixed = whole.t().contiguous().t() if rank else whole
        assert ar(mixed, out=strided) is strided and torch.equal(strided, expected)
        odd = torch.arange(9.0)[1:] + rank
        assert torch.equal(ar(odd, out=odd), 2 * torch.arange(9.0)[1:] + 1)
        scalar = torch.tensor(1.0 + rank)
        assert ar(scalar).item() == 3.0
        special = torch.tensor([float("nan"), float("inf"), -0.0, 1.0])
        out = ar(special)
        assert out[0].isnan() and out[1].isinf() and torch.signbit(out[2]) and out[3] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_tensors(backend: str) -> None:
    """0 elements, strided, odd addresses, scalars, -0.0, NaN and Inf, contiguous on one rank only."""
    run_ranks(2, _odd, backend)


def _subgroups(rank: int, size: int) -> dict[str, Any]:
    pairs = [dist.new_group(ranks) for ranks in ([0, 2], [1, 3])]
    alone = [dist.new_group([r]) for r in range(size)][rank]
    with AllReduce(pairs[rank % 2]) as pair, AllReduce() as every, AllReduce(alone) as own:
        x = torch.tensor([float(10**rank)])
        assert own.plan(x).backend == "none" and own.workspace_bytes == 0
        return {
            "pair": pair(x).item(),
            "all": every(x).item(),
            "own": own(x).item(),
            "ranks": pair.plan(x).backend,
        }


def test_subgroups_and_world_size_one() -> None:
    """Groups of some ranks, of all and of one, held at once."""
    told = run_ranks(4, _subgroups)
    assert [row["pair"] for row in told] == [101.0, 1010.0, 101.0, 1010.0]
    assert all(row["all"] == 1111.0 and row["ranks"] == "shared_memory" for row in told)
    assert [row["own"] for row in told] == [1.0, 10.0, 100.0, 1000.0]


def _many(rank: int, size: int) -> None:
    """Random sizes, each against the plain sum: slots and results are used in turn."""
    sizes = torch.randint(1, 400_000, (120,), generator=torch.Generator().manual_seed(5)).tolist()
    with AllReduce() as ar:
        for turn, numel in enumerate(sizes):
            x = torch.full((numel,), float(turn * (rank + 1)))
            assert torch.equal(ar(x), torch.full_like(x, turn * size * (size + 1) / 2)), turn


def test_small_and_large_in_turn_never_see_old_data() -> None:
    """A slot or result read too early or too late would show another call's number."""
    run_ranks(3, _many)


@pytest.mark.parametrize("size", range(1, 9))
def test_the_tree_pairs_neighbours(size: int) -> None:
    """((0+1)+2) for 3, (((0+1)+(2+3))+(4+5)) for 6: an odd last one goes up alone."""
    parts = [_input(rank, 257, torch.bfloat16) for rank in range(size)]
    out = torch.empty_like(parts[0])
    ordered_sum(parts, "tree", out)
    assert torch.equal(out, _expected(size, 257, torch.bfloat16, "tree"))


def test_the_tree_does_not_depend_on_how_many_ranks_hold_the_parts() -> None:
    """Four parts on four ranks, or their pairwise sums on two, give the same bits."""
    parts = [_input(rank, 999, torch.bfloat16) for rank in range(4)]
    four, two = torch.empty_like(parts[0]), torch.empty_like(parts[0])
    pairs = [torch.empty_like(parts[0]) for _ in range(2)]
    ordered_sum(parts, "tree", four)
    ordered_sum(parts[:2], "tree", pairs[0])
    ordered_sum(parts[2:], "tree", pairs[1])
    ordered_sum(pairs, "tree", two)
    assert torch.equal(four, two)


def _short_way(rank: int, size: int, backend: str) -> None:
    with AllReduce(backend=backend) as ar:
        x = _input(rank, 12, torch.float32).view(3, 4)
        wanted = _expected(size, 12, torch.float32, "ranks").view(3, 4)
        for _ in range(4):
            assert torch.equal(ar(x), wanted)
        assert (x.shape, x.dtype, x.device) in ar._steps
        turned = x.t().contiguous().t()
        other_out = torch.empty(4, 3).t()
        assert torch.equal(ar(turned), wanted) and torch.equal(ar(x, out=other_out), wanted)
        assert ar(turned).is_contiguous()
        with torch.inference_mode():
            assert ar(x).is_inference()
        assert not ar(x).is_inference() and not ar(x).requires_grad
        with pytest.raises(UsageError, match="out does not fit"):
            ar(x, out=torch.empty(4, 3))
        with pytest.raises(UsageError, match="no gradient"):
            ar(x.clone().requires_grad_())
        leaf = x.clone().requires_grad_()
        with torch.no_grad():
            assert torch.equal(ar(leaf), wanted)
    with pytest.raises(UsageError, match="closed"):
        ar(x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_short_way_refuses_and_sums_as_the_long_one(backend: str) -> None:
    """From its third call on a shape is summed with no choosing; what differs from it still is seen."""
    run_ranks(2, _short_way, backend)
