"""Statistics of what a graft replaced."""

from __future__ import annotations

import math

import pytest
import torch

from twinrun.grafting.device_stats import abs_max, replaced


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.bfloat16,
        torch.float64,
        torch.float8_e4m3fn,
        torch.int16,
        torch.complex64,
        torch.bool,
    ],
)
def test_one_pass_finds_what_whole_tensors_have(dtype: torch.dtype) -> None:
    """Any dtype and stride, more elements than one piece."""
    torch.manual_seed(0)
    a, b = ((torch.randn(300, 401) * 3).to(dtype).t() for _ in range(2))
    wide = torch.complex128 if dtype.is_complex else torch.float64
    x, y = a.to(wide), b.to(wide)
    found = replaced(a, b)
    assert found["before_abs_max"] == pytest.approx(float(x.abs().max()))
    assert found["after_abs_max"] == pytest.approx(float(y.abs().max())) == abs_max(b)
    right = float((x - y).norm() / max(x.norm(), y.norm()))
    assert found["moved"] == pytest.approx(right, rel=1e-5)


def test_what_does_not_fit_float32_squared_is_reckoned_wider() -> None:
    """Huge and tiny values neither overflow nor vanish; NaN and infinities show; empty is 0."""
    for size in (1e30, 1e-30):
        a = torch.full((5,), size)
        assert replaced(a, -a)["moved"] == pytest.approx(2.0)
    bad = torch.tensor([1.0, math.nan, 2.0])
    found = replaced(bad, torch.tensor([1.0, math.inf, 2.0]))
    assert math.isnan(found["before_abs_max"]) and found["after_abs_max"] == math.inf
    assert replaced(torch.empty(0), torch.empty(0)) == {
        "before_abs_max": 0.0, "after_abs_max": 0.0, "moved": 0.0
    }  # fmt: skip
