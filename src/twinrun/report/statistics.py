"""Statistics of a tensor that may be larger than memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from twinrun.recorder.stats import Moments

_SLICE = 1 << 22
"""Elements a slice: what is widened to float64 at one time."""


def statistics(tensor: torch.Tensor) -> Mapping[str, float | int | str]:
    """Count, mean, std, extremes and non-finite counts, as ``--mode stats`` records them."""
    moments = Moments()
    flat = tensor.reshape(-1)
    for start in range(0, flat.numel(), _SLICE):
        moments.add(flat[start : start + _SLICE])
    return moments.result()
