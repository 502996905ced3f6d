"""Rows of strided views, filled straight from a ring."""

from __future__ import annotations

import ctypes
import random

import pytest
import torch

from twinrun.grafting.ring import Ring
from twinrun.grafting.rows import LEAST_BYTES, Rows


@pytest.mark.parametrize(
    ("shape", "index"),
    [
        ((700, 2048), (slice(None), slice(600, 1300))),
        ((3, 50, 1200), (slice(1, 3), slice(5, 45), slice(0, 1100))),
        ((2, 40, 6, 256), (slice(None), slice(1, 39), slice(0, 3))),
        ((9, 1, 1024), (slice(0, 9, 2),)),
    ],
)
def test_every_row_gets_its_bytes_wherever_the_ring_wraps(
    shape: tuple[int, ...], index: tuple[slice, ...]
) -> None:
    """Messages begin anywhere in the ring, and rows may be cut by its end and by the writer's pace."""
    ring = Ring.create(64 << 10)
    chance = random.Random(7)
    for _ in range(3):
        whole = torch.zeros(shape)
        view = whole[index]
        rows = Rows.of(view)
        assert rows is not None
        sent = torch.randn(view.shape)
        before = bytes(chance.randrange(1, 999))
        skipped = ctypes.create_string_buffer(len(before))
        assert ring.write(ctypes.addressof(ctypes.create_string_buffer(before)), len(before))
        assert ring.read(ctypes.addressof(skipped), len(before)) or len(before) > ring.capacity
        at, left = sent.data_ptr(), sent.numel() * 4
        while not rows.done:
            count = ring.write(at, min(left, chance.randrange(1, 30_000))) if left else 0
            at, left = at + count, left - count
            if chance.random() < 0.7:
                ring.read_rows(rows)
        assert left == 0 and torch.equal(view, sent)
        assert int(whole.count_nonzero()) == int(sent.count_nonzero())
        # What is left over of the skipped bytes at the ring's end.
        while ring.read(ctypes.addressof(skipped), len(before)):
            pass
    ring.close()


def test_short_rows_are_left_to_the_other_way() -> None:
    """The kernel's cost a row is not worth it for them."""
    assert Rows.of(torch.zeros(10, 64)[:, :32]) is None
    assert Rows.of(torch.zeros(10, LEAST_BYTES // 2)[:, : LEAST_BYTES // 4]) is not None
