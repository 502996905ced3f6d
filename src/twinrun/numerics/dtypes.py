"""Floating-point formats as facts: unit roundoff, smallest step, and which of two is coarser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Format:
    """One element type. ``roundoff`` is half the spacing at 1; ``step`` half the smallest spacing.

    Both are 0 for exact types (integers, bools, bits). ``accumulator`` is the roundoff of the type in
    which sums of this type are usually carried.
    """

    name: str
    kind: Literal["float", "complex", "exact"]
    roundoff: float = 0.0
    step: float = 0.0
    accumulator: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether equal values are the only right values."""
        return self.kind == "exact"


def _float(name: str, digits: int, least: int, accumulator: int = 24) -> Format:
    """``digits`` of significand with the hidden bit; ``least`` is the exponent of the smallest step."""
    return Format(name, "float", 2.0**-digits, 2.0 ** (least - 1), 2.0 ** -max(digits, accumulator))


_FLOATS = (
    _float("float64", 53, -1074),
    _float("float32", 24, -149),
    _float("bfloat16", 8, -133),
    _float("float16", 11, -24),
    _float("float8_e4m3fn", 4, -9),
    _float("float8_e4m3fnuz", 4, -10),
    _float("float8_e5m2", 3, -16),
    _float("float8_e5m2fnuz", 3, -17),
    _float("float8_e8m0fnu", 1, -127),
    _float("float4_e2m1fn_x2", 2, -1),
)
_BY_NAME = {form.name: form for form in _FLOATS}
for _name, _of in (
    ("complex128", "float64"),
    ("complex64", "float32"),
    ("complex32", "float16"),
):
    _part = _BY_NAME[_of]
    _BY_NAME[_name] = Format(_name, "complex", _part.roundoff, _part.step, _part.accumulator)


def format_of(dtype: str) -> Format:
    """Facts of a dtype by torch's name without ``torch.``; what is no float or complex is exact."""
    return _BY_NAME.get(dtype) or Format(dtype, "exact")


def coarser(first: str, second: str) -> Format:
    """Of two dtypes the one that says less: the larger roundoff, a float before an exact type."""
    one, two = format_of(first), format_of(second)
    return one if one.roundoff >= two.roundoff else two
