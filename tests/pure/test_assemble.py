"""Rules of assembling the logical tensor and of checking replicas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_worlds import worlds

from twinrun.comparison.assemble import assemble, boxes, read, slices
from twinrun.comparison.replicas import check_replicas
from twinrun.errors import LayoutError
from twinrun.layout import Box, Mesh, parse_axes, parse_dims, place
from twinrun.numerics.bits import same_bits

DTYPES = [
    torch.float32, torch.float64, torch.bfloat16, torch.float16,
    torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu, torch.float4_e2m1fn_x2,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint16, torch.uint32, torch.uint64, torch.uint4,
    torch.complex32, torch.complex64, torch.complex128,
]  # fmt: skip


def even(axes: str, shape: tuple[int, ...], dims: str):
    sizes = parse_axes(axes)
    ranks = range(math.prod(sizes.values()))
    return place(parse_dims(dims), {rank: (Mesh.at(rank, sizes), shape) for rank in ranks})


def any_bits(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Random bit patterns, NaNs with payloads among them."""
    most = 2 if dtype == torch.bool else 256
    generator = torch.Generator().manual_seed(7)
    raw = torch.randint(0, most, (*shape, dtype.itemsize), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).squeeze(-1) if dtype.itemsize > 1 else raw.squeeze(-1).view(dtype)


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(1, 200))
def test_slices_are_the_tensor_in_order_and_within_the_limit(world, limit):
    """Slices tile the tensor, none above the limit but for single elements; assemble is the same."""
    placement = place(world.dims, world.shards)
    parts = {rank: torch.from_numpy(part) for rank, part in world.locals.items()}
    whole = torch.from_numpy(world.whole)
    out = torch.full_like(whole, -1)
    for box, value in slices(placement, parts.__getitem__, limit):
        assert tuple(value.shape) == box.shape
        assert box.volume * 8 <= max(limit, 8)
        out[box.slices] = value
    assert torch.equal(out, whole)
    assert torch.equal(assemble(placement, parts.__getitem__), whole)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=4).map(tuple), st.integers(0, 40))
def test_boxes_tile_a_shape_in_row_major_order(shape, elements):
    """Read one after the other, the boxes are the flat tensor; an empty shape is one empty box."""
    flat = torch.arange(math.prod(shape)).view(shape)
    made = list(boxes(shape, elements))
    assert torch.equal(torch.cat([flat[box.slices].reshape(-1) for box in made]), flat.reshape(-1))
    assert all(box.volume <= max(elements, 1) for box in made)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_gathered_bit_for_bit(dtype):
    """Whatever the bits mean, two halves give them back; replicas of them are compared as bits."""
    whole = any_bits(dtype, 4, 6)
    halves = {0: whole[:, :3], 1: whole[:, 3:]}
    gathered = assemble(even("tp=2", (4, 3), "a b[tp]"), halves.__getitem__)
    assert same_bits(gathered, whole)
    copies = even("tp=2", (4, 6), "a b")
    assert check_replicas(copies, {0: whole, 1: gathered}.__getitem__) == []
    raw = whole.view(torch.uint8)
    other = raw.clone()
    other[3, -1] ^= 1
    (found,) = check_replicas(copies, {0: whole, 1: other.view(dtype)}.__getitem__)
    assert (found.ranks, found.differing, found.elements) == ((0, 1), 1, 24)
    assert found.index == (3, 5) and found.bits[0] != found.bits[1]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float8_e4m3fn, torch.float32),
        (torch.float64, torch.float64),
        (torch.complex64, torch.complex64),
        (torch.complex128, torch.complex128),
        (torch.bool, torch.int64),
        (torch.uint8, torch.int64),
    ],
)
def test_pending_sums_are_added_wide_enough(dtype, expected):
    """Addends are added in rank order in a type that does not round them to their own dtype."""
    ones = torch.ones(2, 3).to(dtype)
    parts = {0: ones, 1: ones, 2: ones}
    total = assemble(even("tp=3", (2, 3), "a b[tp:partial]"), parts.__getitem__)
    assert total.dtype == expected and (total == 3).all()


def test_the_order_of_addition_is_that_of_ranks():
    """1e8 - 1e8 + 1 in float32 is 1 in rank order, 0 in the reverse order."""
    parts = {r: torch.tensor([v]) for r, v in enumerate((1e8, -1e8, 1.0))}
    assert assemble(even("tp=3", (1,), "[tp:partial] a"), parts.__getitem__).item() == 1.0


def test_a_slice_costs_memory_for_itself_only():
    """64 GiB of logical tensor, in two halves that repeat one element, are read slice by slice."""
    half = torch.ones(1).expand(1 << 20, 1 << 13)
    layout = even("tp=2", tuple(half.shape), "a b[tp]")
    first = [value for (_, value), _ in zip(slices(layout, lambda _: half), range(2), strict=False)]
    assert [tuple(value.shape) for value in first] == [(512, 1 << 14)] * 2
    assert all((value == 1).all() for value in first)


def test_a_sum_that_no_arithmetic_carries_is_refused():
    """Packed four-bit floats and sub-byte integers have no sum."""
    for dtype in (torch.float4_e2m1fn_x2, torch.uint4):
        part = any_bits(dtype, 2)
        with pytest.raises(LayoutError, match="cannot be carried out"):
            assemble(even("tp=2", (2,), "a[tp:partial]"), {0: part, 1: part}.__getitem__)


def test_a_slice_of_one_rank_is_a_view():
    """No copy where one rank holds the whole slice: same storage as what fetch returned."""
    parts = {0: torch.arange(12.0).view(4, 3), 1: torch.arange(12.0).view(4, 3)}
    rows = even("tp=2", (4, 3), "a[tp] b")
    for box, value in slices(rows, parts.__getitem__, 12):
        assert value.data_ptr() == parts[box.starts[0] // 4][box.starts[0] % 4].data_ptr()
    whole = even("tp=2", (4, 3), "a b")
    assert assemble(whole, parts.__getitem__).data_ptr() == parts[0].data_ptr()
    between = read(rows.group, Box((3, 0), (5, 3)), parts.__getitem__)
    assert between.tolist() == [[9.0, 10.0, 11.0], [0.0, 1.0, 2.0]]


def test_parts_that_do_not_belong_together_are_refused_by_rank():
    """Another dtype, or another shape than the one that was placed, names the ranks."""
    halves = even("tp=2", (4, 3), "a[tp] b")
    with pytest.raises(LayoutError, match="ranks 0 and 1 hold parts of one tensor in different"):
        assemble(halves, {0: torch.zeros(4, 3), 1: torch.zeros(4, 3).double()}.__getitem__)
    with pytest.raises(LayoutError, match="rank 1 holds a tensor of shape"):
        assemble(halves, {0: torch.zeros(4, 3), 1: torch.zeros(2, 3)}.__getitem__)
    with pytest.raises(LayoutError, match="different samples"):
        assemble(even("dp=2", (4, 3), "a b"), {0: torch.zeros(4, 3)}.__getitem__)


def test_a_replica_difference_tells_the_worst_element():
    """Count, logical index, values and bits of the element that lies farthest apart."""
    one = torch.zeros(2, 6)
    other = one.clone()
    other[1, 2], other[0, 1] = 4.0, -0.0
    layout = even("ep=2,tp=2", (2, 3), "a b[tp]")
    parts = {0: one[:, :3], 1: one[:, 3:], 2: other[:, :3], 3: one[:, 3:]}
    (found,) = check_replicas(layout, parts.__getitem__, limit_bytes=8)
    assert found.ranks == (0, 2) and found.differing == 2
    assert found.index == (1, 2) and found.values == (0.0, 4.0) and found.max_abs == 4.0
    assert found.bits == ("0x00000000", "0x40800000")


def test_replica_checks_are_nan_safe():
    """NaNs with one payload are equal; a NaN on one side is worse than any number."""
    pair = even("tp=2", (3,), "a")
    one = torch.tensor([math.nan, 1.0, 2.0])
    assert check_replicas(pair, {0: one, 1: one.clone()}.__getitem__) == []
    other = torch.tensor([math.nan, math.nan, 9.0])
    (found,) = check_replicas(pair, {0: one, 1: other}.__getitem__)
    assert found.index == (1,) and math.isinf(found.max_abs) and found.differing == 2
    (found,) = check_replicas(pair, {0: one, 1: one.double()}.__getitem__)
    assert found.reason == "dtype"
    big = {0: torch.tensor([2**62, 0, 0]), 1: torch.tensor([2**62 + 1, 0, 0])}
    (found,) = check_replicas(pair, big.__getitem__)
    assert found.max_abs == 1.0
