"""What narrow types hide element by element: common factors, and noise that cannot be there yet."""

from __future__ import annotations

import math

import torch
from memory_run import MemoryRun

from twinrun import compare
from twinrun.numerics.gain import allowed_gain, gain

A = torch.randn(256, 128, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(256, 128, generator=torch.Generator().manual_seed(1))


def pair(target: torch.Tensor, before: int = 0) -> str:
    """The verdict of a bfloat16 point after ``before`` blocks that are equal, and one that is not."""
    baseline, other = MemoryRun(), MemoryRun()
    for run, last in ((baseline, A.bfloat16()), (other, target.bfloat16())):
        for layer in range(before):
            run.add(f"layers.{layer}:output", A.bfloat16())
        run.add(f"layers.{before}.mlp:output", last)
    return compare(baseline, other).rows[-1].verdict


def test_noise_is_close() -> None:
    """Independent errors of a roundoff each are close."""
    assert pair(A * (1 + 0.004 * NOISE)) == "close"


def test_a_common_factor_is_not_close() -> None:
    """The same distance, all in one direction, is not."""
    assert pair(A * 1.01) in ("undecided", "differs")
    assert pair(A / 1.01) in ("undecided", "differs")


def test_depth_counts_from_where_runs_part() -> None:
    """After 60 bit-identical blocks the floor is that of the block in which the runs part."""
    wrong = A.clone()
    wrong += 0.07 * NOISE
    assert pair(wrong) == pair(wrong, before=60) == "differs"


def test_gain_is_symmetric_and_defined() -> None:
    """Exchanging the sides changes nothing; zeros and infinities have no gain."""
    assert gain((1.0, 1.01)) == gain((1.01, 1.0)) > 0
    assert gain((0.0, 0.0)) == gain((1.0, math.inf)) == 0.0
    assert allowed_gain(1e-6, 10) == allowed_gain(1e-2, 0) == math.inf
