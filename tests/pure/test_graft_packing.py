"""Boxes copied into the memory of a larger tensor."""

from __future__ import annotations

from math import prod
from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrun.grafting import packing
from twinrun.layout.box import Box
from twinrun.numerics.bits import same_bits

SIDES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=3
)


@settings(max_examples=200, deadline=None)
@given(
    sides=SIDES,
    unit=st.sampled_from([1, 2, 8]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.int8, torch.complex64, torch.bool]),
    turned=st.booleans(),
    offset=st.sampled_from([0, 8, 24, 32]),
    seed=st.integers(0, 1000),
)
def test_boxes_are_put_in_their_places_bit_for_bit(
    sides: list[tuple[int, int, int]],
    unit: int,
    dtype: torch.dtype,
    turned: bool,
    offset: int,
    seed: int,
) -> None:
    """Whatever width of words the rows and places allow; nothing beside a box is touched."""
    whole = tuple(unit * sum(side) for side in sides)
    box = Box(
        tuple(unit * before for before, *_ in sides),
        tuple(unit * (before + size) for before, size, _ in sides),
    )
    most = 2 if dtype == torch.bool else 256
    chance = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, most, (prod(box.shape) * dtype.itemsize,), generator=chance)
    value = bits.to(torch.uint8).view(dtype).view(box.shape)
    value = value.transpose(0, -1).contiguous().transpose(0, -1) if turned else value
    nbytes = prod(whole) * dtype.itemsize
    raw = torch.ones(offset + nbytes, dtype=torch.uint8)
    with patch.object(packing, "_LEAST_WIDE_BYTES", 0):
        packing.place(packing.Flat(raw), offset, whole, box, value)
    wanted = torch.ones(nbytes, dtype=torch.uint8).view(dtype).view(whole)
    wanted[box.slices] = value
    assert same_bits(raw[offset:].clone().view(dtype).view(whole), wanted)
    assert bool((raw[:offset] == 1).all())
