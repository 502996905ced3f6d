"""The distance of two tensors is what a plain float64 calculation says, whatever the values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from twinrun.numerics import meter
from twinrun.numerics.detail import detail
from twinrun.numerics.distance import distance, measure
from twinrun.numerics.own_size import worst_own

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)
FLOATS = st.sampled_from((np.float32, np.float64, np.float16))


@st.composite
def pairs(draw: st.DrawFn, specials: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors of one shape and dtype; a random share of the second is taken from the first."""
    dtype, shape = draw(FLOATS), draw(SHAPES)
    elements = st.floats(
        width=np.dtype(dtype).itemsize * 8, allow_nan=specials, allow_infinity=specials
    )
    one, two = (draw(hnp.arrays(dtype, shape, elements=elements)) for _ in range(2))
    keep = draw(hnp.arrays(bool, shape))
    return torch.from_numpy(np.asarray(one)), torch.from_numpy(
        np.where(keep, one, two).astype(dtype)
    )


def reference(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float, int]:
    """relative L2, largest absolute difference and differing elements, in long double."""
    one, two = a.numpy().astype(np.longdouble), b.numpy().astype(np.longdouble)
    fine = np.isfinite(one) & np.isfinite(two)
    differing = int(((one != two) & ~(np.isnan(one) & np.isnan(two))).sum())
    one, two = one[fine], two[fine]
    norms = [np.sqrt((side**2).sum()) for side in (one, two)]
    apart = np.sqrt(((one - two) ** 2).sum())
    top = np.abs(one - two).max() if one.size else np.longdouble(0)
    return float(apart / max(norms)) if max(norms) else 0.0, float(top), differing


@settings(max_examples=300, deadline=None)
@given(pairs())
def test_matches_reference(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """relative L2, max |a-b| and the count are those of long double arithmetic, never NaN."""
    found = distance(*pair)
    relative, top, differing = reference(*pair)
    assert math.isclose(found.relative_l2, relative, rel_tol=1e-5, abs_tol=1e-150)
    assert found.differing == differing
    got = found.max_abs.value if found.max_abs else 0.0
    assert math.isclose(got, top, rel_tol=1e-6, abs_tol=0.0) or (got == math.inf == top)
    assert not math.isnan(found.cosine) and -1 <= found.cosine <= 1


@settings(max_examples=200, deadline=None)
@given(pairs())
def test_symmetric(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Exchanging the sides changes no measure, only which side is which."""
    one, two = distance(*pair), distance(*reversed(pair))
    assert one.relative_l2 == two.relative_l2
    assert one.differing == two.differing and one.bits_equal == two.bits_equal
    assert one.nan == two.nan[::-1] and one.inf == two.inf[::-1]
    assert (one.worst and one.worst.value) == (two.worst and two.worst.value)
    assert (one.max_abs and one.max_abs.index) == (two.max_abs and two.max_abs.index)


@settings(max_examples=100, deadline=None)
@given(pairs(specials=False), st.integers(1, 4))
def test_slices_do_not_matter(pair: tuple[torch.Tensor, torch.Tensor], rows: int) -> None:
    """Cutting a pair into slices of the leading dim changes no sum beyond rounding."""
    a, b = pair
    assume(a.dim() > 0 and a.shape[0] > 0)
    whole = distance(a, b)
    cut = measure(lambda: zip(a.split(rows), b.split(rows), strict=True), a.shape, a.dtype, b.dtype)
    assert math.isclose(whole.relative_l2, cut.relative_l2, rel_tol=1e-6)
    assert whole.differing == cut.differing
    tops = [found.max_abs.value if found.max_abs else 0.0 for found in (whole, cut)]
    assert math.isclose(*tops, rel_tol=1e-6)  # the careful path subtracts in float64


@pytest.mark.parametrize("rows", [1, 64, 70000])
def test_long_rows(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row longer than a chunk is measured against its whole RMS."""
    monkeypatch.setattr(meter, "CHUNK", 1000)
    torch.manual_seed(0)
    a = torch.randn(70000 // rows * rows).view(rows, -1)
    b = a + 1e-3 * torch.randn_like(a)
    scale = torch.maximum(*(t.double().square() for t in (a, b)))
    cols = meter.row_length(tuple(a.shape))
    flat = [t.double().reshape(-1, cols) if a.numel() % cols == 0 else None for t in (a, b)]
    if flat[0] is None or flat[1] is None:
        return
    rms = torch.maximum(*(t.square().mean(-1).sqrt() for t in flat))
    want = ((flat[0] - flat[1]).abs().amax(-1) / rms).max()
    worst = distance(a, b).worst
    assert worst is not None and math.isclose(worst.value, float(want), rel_tol=1e-5)
    assert scale.numel()


SPECIAL = [
    ([float("nan"), 1.0], [float("nan"), 1.0], 0, (0, 0), (0, 0)),
    ([float("nan"), 1.0], [1.0, 1.0], 1, (1, 0), (0, 0)),
    ([float("inf"), 1.0], [float("inf"), 1.0], 0, (0, 0), (0, 0)),
    ([float("inf"), 1.0], [float("-inf"), 1.0], 1, (0, 0), (1, 1)),
    ([float("inf"), 1.0], [2.0, 1.0], 1, (0, 0), (1, 0)),
    ([float("inf"), 1.0], [float("nan"), 1.0], 1, (0, 1), (1, 0)),
]


@pytest.mark.parametrize(("a", "b", "differing", "nan", "inf"), SPECIAL)
def test_specials(
    a: list[float], b: list[float], differing: int, nan: tuple[int, int], inf: tuple[int, int]
) -> None:
    """NaN equals NaN and an infinity itself; anything else against them is one-sided."""
    found = distance(torch.tensor(a), torch.tensor(b))
    assert (found.differing, found.nan, found.inf) == (differing, nan, inf)
    assert found.relative_l2 == 0.0


def test_zeros_and_empties() -> None:
    """Zeros equal zeros, a zero against a value is at distance 1, an empty pair is equal."""
    zero = torch.zeros(3)
    assert distance(zero, zero).bits_equal and distance(zero, zero).relative_l2 == 0
    assert math.isclose(distance(zero, torch.ones(3)).relative_l2, 1, rel_tol=1e-6)
    assert distance(torch.empty(0, 4), torch.empty(0, 4)).bits_equal
    signed = distance(zero, -zero)
    assert not signed.bits_equal and signed.differing == 0 and signed.worst is None


@pytest.mark.parametrize("factor", [1e30, 1e-30, 1e-42])
def test_float32_out_of_range_squares(factor: float) -> None:
    """Where float32 squares overflow or vanish the sums are redone in float64."""
    torch.manual_seed(1)
    a = torch.randn(100, 100) * factor
    b = a.clone()
    b[3] *= 1.5
    want = reference(a, b)
    found = distance(a, b)
    assert math.isclose(found.relative_l2, want[0], rel_tol=1e-5)
    assert found.worst is not None and found.worst.index[0] == 3


@pytest.mark.parametrize("factor", [1e300, 1e-300])
def test_float64_out_of_range_squares(factor: float) -> None:
    """Where even float64 squares leave the range the pair is measured again, scaled."""
    a = torch.rand(10, 10, dtype=torch.float64) * factor + factor
    found = distance(a, a * 1.01)
    assert math.isclose(found.relative_l2, 0.01 / 1.01, rel_tol=1e-9)
    assert found.max_abs is not None and math.isclose(found.max_abs.value, float(a.max()) * 0.01)


def test_integers_exact() -> None:
    """Integers beyond 2**53 that differ by one are told apart; uint64 keeps its order."""
    a = torch.tensor([2**60, -(2**63), 5])
    b = torch.tensor([2**60 + 1, 2**63 - 1, 5])
    found = distance(a, b)
    assert found.differing == 2 and found.max_abs is not None
    assert found.max_abs.index == (1,) and found.max_abs.value == 2.0**64
    big = torch.tensor([2**64 - 1, 3], dtype=torch.uint64)
    small = torch.tensor([2**64 - 2, 3], dtype=torch.uint64)
    spot = distance(big, small).max_abs
    assert spot is not None and (spot.value, spot.a) == (1.0, 2**64 - 1)


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu,
     torch.complex64, torch.bool, torch.uint16, torch.int8],
)  # fmt: skip
def test_dtypes(dtype: torch.dtype) -> None:
    """Every dtype that a program can hold is measured, mixed with float32 too."""
    a = torch.tensor([1.0, 2.0, 4.0, 1.0]).to(dtype)
    b = torch.tensor([1.0, 2.0, 1.0, 1.0]).to(dtype)
    found = distance(a, b)
    if dtype != torch.bool:
        assert found.differing == 1 and found.max_abs is not None
        assert found.max_abs.index == (2,) and found.max_abs.value == 3.0
        mixed = distance(
            a,
            torch.tensor([1.0, 2.0, 4.0, 1.0]).to(
                torch.complex128 if dtype.is_complex else torch.float32
            ),
        )
        assert mixed.relative_l2 == 0 and not mixed.bits_equal
    assert distance(a, a).bits_equal


def test_packed_and_sub_byte() -> None:
    """Packed four-bit floats are unpacked, sub-byte integers compared by their bytes."""
    a = torch.tensor([0x12, 0x34], dtype=torch.uint8)
    b = torch.tensor([0x12, 0x35], dtype=torch.uint8)
    four = distance(a.view(torch.float4_e2m1fn_x2), b.view(torch.float4_e2m1fn_x2))
    assert four.max_abs is not None and (four.max_abs.index, four.max_abs.value) == ((1,), 1.0)
    assert distance(a.view(torch.int4), b.view(torch.int4)).differing == 1


def test_ulps() -> None:
    """ULP buckets count representable values in between, across zero, and leave NaN out."""
    a = torch.tensor([1.0, 1.0, 0.0, -0.0, float("nan"), 8.0])
    tiny = torch.tensor(1, dtype=torch.int32).view(torch.float32)
    b = torch.stack(
        [*torch.tensor([1.0, 1.0]).nextafter(torch.tensor(2.0)), -tiny, tiny * 0, a[0], a[5]]
    )
    b[1] = 1.0 + 3 * 2.0**-23
    found = detail(lambda: [(a, b)], (6,), a.dtype, b.dtype)
    assert found.ulp == ((0, 2), (1, 2), (3, 1))
    a64 = torch.tensor([-1e308], dtype=torch.float64)
    apart = detail(lambda: [(a64, -a64)], (1,), a64.dtype, a64.dtype)
    assert apart.ulp == (((1 << 64) - 1, 1),)
    assert apart.max_relative is None or apart.max_relative.value <= 2


def test_worst_by_own_size() -> None:
    """An element a thousand times its row is allowed an error relative to itself."""
    torch.manual_seed(0)
    a = torch.randn(4, 4096)
    a[2, 7] = 1000.0
    b = a.clone()
    b[2, 7] *= 1.001
    plain = distance(a, b)
    assert plain.worst is not None and plain.worst.value > 0.05
    own = worst_own(lambda: [(a, b)], (4, 4096), a.dtype, b.dtype)
    assert math.isclose(own, 0.001, rel_tol=0.01)


@settings(max_examples=200, deadline=None)
@given(pairs())
def test_ulps_match_counting(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Every distance is the number of steps on the ladder of representable values."""
    a, b = pair
    found = detail(lambda: [(a, b)], tuple(a.shape), a.dtype, b.dtype).ulp
    size = a.element_size()

    def rung(value: torch.Tensor) -> int:
        bits = int.from_bytes(value.numpy().tobytes(), "little")
        top = 1 << (8 * size - 1)
        return -(bits - top) if bits >= top else bits

    want: dict[int, int] = {}
    for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True):
        if torch.isfinite(x) and torch.isfinite(y):
            bound = (1 << abs(rung(x) - rung(y)).bit_length()) - 1
            want[bound] = want.get(bound, 0) + 1
    assert found == tuple(sorted(want.items()))
