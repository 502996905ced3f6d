"""Rules of comparing tensors whose annotations order or fuse their dims differently."""

from __future__ import annotations

import pytest
import torch

from twinrun.comparison.logical import Logical, of_tensor, slices
from twinrun.comparison.matched import matched
from twinrun.layout import parse_dims


def pair(one: torch.Tensor, one_dims: str | None, two: torch.Tensor, two_dims: str | None):
    parsed = [None if text is None else parse_dims(text) for text in (one_dims, two_dims)]
    return matched(of_tensor(one), parsed[0], of_tensor(two), parsed[1])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.complex128]
)
def test_the_same_tensor_under_other_dims_is_the_same(dtype, monkeypatch):
    """s b heads d against b s 1 (heads*d): every slice holds the same values on both sides."""
    monkeypatch.setattr("twinrun.comparison.logical.SLICE_ELEMENTS", 7)
    x = torch.randn(3, 2, 4, 5).to(dtype)
    y = x.permute(1, 0, 2, 3).reshape(2, 3, 1, 20)
    one, two = pair(x, "s b heads[tp] d", y, "b s 1 (heads*d)[tp]")
    assert one.shape == two.shape == (3, 2, 4, 5)
    whole = two.whole()
    assert torch.equal(
        whole.double() if not dtype.is_complex else whole, x.double() if not dtype.is_complex else x
    )
    for a, b in slices(one, two):
        assert a.dtype == b.dtype == dtype
        assert torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def test_what_needs_no_view_is_left_alone():
    """Equal names, no dims, or names that do not correspond: the very same objects."""
    x, y = torch.zeros(2, 3), torch.ones(2, 3)
    for texts in (("t h[tp]", "t h"), (None, "t h"), ("t h", None), ("t h", "b d")):
        one, two = of_tensor(x), of_tensor(y)
        dims = [None if text is None else parse_dims(text) for text in texts]
        assert matched(one, dims[0], two, dims[1]) == (one, two)
    assert isinstance(pair(x, "t h", y.t(), "h t")[1], Logical)
