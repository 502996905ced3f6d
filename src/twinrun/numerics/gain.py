"""A common factor between two tensors: what rounding leaves of it, however large each element's noise.

Independent errors hardly change a norm: with N rows off by e each, it moves by e / sqrt(N), plus
e^2 / 2 that they add at right angles. A factor moves it whole. So the norms tell a scale that is
off by a part of what each element may be off by. Rows, not elements, are what is independent: a
norm layer rounds a whole row's scale alike.
"""

from __future__ import annotations

import math

# Right runs stay below 0.95 of floor / sqrt(rows): 800 points of 32-layer Llama- and Gemma-like models
# in bfloat16, one process against two (benchmarks/real_models).
MARGIN = 2.0
# Beyond this many rows a common rounding bias, not the walk of independent ones, is what is left.
MOST_ROWS = 4096
# Below such floors the sums' own rounding is as large as what they would have to show.
LEAST_FLOOR = 1e-4


def gain(norms: tuple[float, float]) -> float:
    """How far the smaller norm falls short of the larger, as a share of it: symmetric, 0 to 1."""
    least, most = sorted(norms)
    return 1.0 - least / most if 0.0 < most < math.inf else 0.0


def allowed_gain(floor_l2: float, rows: int) -> float:
    """The largest gain that rounding explains in ``rows`` rows; infinite where norms cannot tell."""
    if floor_l2 < LEAST_FLOOR or rows < 1:
        return math.inf
    return MARGIN * floor_l2 / math.sqrt(min(rows, MOST_ROWS)) + floor_l2 * floor_l2 / 2
