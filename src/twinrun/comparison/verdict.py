"""From the numbers of a pair and its floor to a verdict; docs/verdicts.md is the specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twinrun.comparison.result import Floor, Measured
from twinrun.numerics.distance import Distance
from twinrun.numerics.dtypes import Format
from twinrun.numerics.gain import allowed_gain, gain

# Above the floor, up to K floors, a pair is undecided. One good run beside the baseline measures the
# floor within a factor of about 2; the first-order formula knows neither the weights nor the kernels.
K_MEASURED = 2.0
K_FIRST_ORDER = 4.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with the distance in floors that led to it, and a word where something else did."""

    measured: Measured
    ratio: float
    reason: str = ""


def judge(
    found: Distance,
    floor: Floor,
    form: Format,
    own: Callable[[], float] | None = None,
    rows: int = 0,
) -> Judgement:
    """Equal, close, undecided or differs.

    A pair within its floor whose norms differ by more than rounding in so many ``rows`` explains is
    undecided: each element hides a common factor, all of them together do not (`numerics.gain`).

    `own` gives the worst element against its own size and a typical row, too (`numerics.own_size`);
    it is asked for only where the L2 is within bounds and the worst element is not.
    """
    if found.bits_equal:
        return Judgement("equal", 0.0)
    if found.one_sided:
        return Judgement("differs", float("inf"), "nonfinite")
    if form.exact:
        return Judgement("differs", float("inf")) if found.differing else Judgement("close", 0.0)
    worst = found.worst.value if found.worst is not None else 0.0
    by_l2 = _ratio(found.relative_l2, floor.l2)
    if _ratio(worst, floor.worst) > max(1.0, by_l2) and own is not None:
        worst = min(worst, own())
    ratio = max(by_l2, _ratio(worst, floor.worst))
    scaled = gain(found.norms) / allowed_gain(floor.l2, rows)
    if ratio <= 1 < scaled:
        return Judgement("undecided", min(scaled, floor.k), "factor")
    return Judgement(_word(ratio, floor.k), ratio)


def _word(ratio: float, k: float) -> Measured:
    if ratio <= 1:
        return "close"
    return "undecided" if ratio <= k else "differs"


def _ratio(value: float, floor: float) -> float:
    if floor:
        return value / floor
    return float("inf") if value else 0.0
