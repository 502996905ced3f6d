"""How far two right runs may lie apart: the first-order floor, and a floor that was measured.

The model is that of probabilistic rounding analysis (N. J. Higham and T. Mary, "A New Approach to
Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41(5), 2019): independent roundings add
up as a random walk, so D of them give sqrt(D) u, and a sum of n terms sqrt(n) u. The coefficients
are fitted to the table of benchmarks/floors.py; docs/verdicts.md gives both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from twinrun.numerics.dtypes import Format

# Variance that one rounding adds to the relative L2 of two runs, in units of roundoff squared.
ROUNDING = 0.14
# The same for a term of a sum, carried in the accumulator's precision: kernels sum in blocks.
TERM = 0.008
# Roundings that any two runs differ by before depth shows: both ends of the first block.
START = 18
# Roundings along one block of a transformer (projections, products, norms, residual sums).
PER_BLOCK = 8
# Distance from the fitted line to the floor.
MARGIN = 1.5
# Gradients amplify rounding: softmax and norms are differentiated where they nearly cancel.
GRADIENT_GAIN = 1.6
# The worst of N elements lies sqrt(2 ln N) deviations out; tails of real tensors are heavier.
TAIL = 3.0
# No floor lets an element be wrong by half the RMS of its row; in a gradient, whose rows are sums that
# nearly cancel, by all of it. A row that is wrong altogether has elements off by several times that.
LARGEST_WORST = 0.5
LARGEST_WORST_GRADIENT = 1.0
# A measured floor is this many times the distance of two good runs: one sample of a random quantity.
NOISE_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Largest relative L2 and largest worst element that rounding explains."""

    l2: float
    worst: float


def first_order(
    form: Format,
    *,
    depth: int,
    reduction: int,
    elements: int,
    rms: float = 1.0,
    gradient: bool = False,
) -> Allowance:
    """The floor of a point that lies `depth` roundings into a run and sums up to `reduction` terms.

    ``l2 = 1.5 sqrt(D + 18) sqrt(0.14 u^2 + 0.008 n a^2)``, u the roundoff of the coarser dtype (with
    the smallest step over the tensor's RMS where that is larger), a that of its accumulator, and never
    above ``sqrt(u)``: where half of the digits are noise no first-order argument holds. Gradients
    have 1.6 times that.
    ``worst = 3 sqrt(2 ln N) l2`` for N elements, never above 0.5 (1 for gradients). Exact types have the floor 0.
    """
    if form.exact:
        return Allowance(0.0, 0.0)
    roundoff = max(form.roundoff, form.step / rms if rms > 0 else 0.0)
    terms = TERM * max(1, reduction) * form.accumulator**2
    gain = MARGIN * (GRADIENT_GAIN if gradient else 1.0)
    l2 = gain * math.sqrt(depth + START) * math.sqrt(ROUNDING * roundoff**2 + terms)
    largest = LARGEST_WORST_GRADIENT if gradient else LARGEST_WORST
    return spread(min(l2, math.sqrt(form.roundoff)), elements, largest)


def measured(l2: float, worst: float) -> Allowance:
    """The floor from the distance of two runs that are both right."""
    return Allowance(NOISE_MARGIN * l2, NOISE_MARGIN * worst)


def spread(l2: float, elements: int, largest: float = LARGEST_WORST) -> Allowance:
    """An L2 floor with the worst element that goes with it among `elements`."""
    tail = TAIL * math.sqrt(2 * math.log(max(2, elements)))
    return Allowance(l2, min(tail * l2, largest))
