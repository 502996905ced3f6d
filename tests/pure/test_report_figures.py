"""Numbers as a person reads them."""

from __future__ import annotations

import pytest

from twinrun.report.figures import amount, counted, element, figure, percent, ranks, safe, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.7633, "0.76"), (1.2e-6, "1.2e-6"), (3e-7, "3e-7"), (1.94, "1.9"), (190.2, "190"),
        (123456.0, "1.2e5"), (-0.5, "-0.5"), (float("nan"), "NaN"), (float("-inf"), "-Inf"), (1e-45, "1e-45"),
    ],
)  # fmt: skip
def test_measures_have_two_digits(value: float, text: str) -> None:
    """A measure is shown with two digits, its exponent without padding."""
    assert figure(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.5, "50 %"), (1e-6, "under 0.1 %"), (0.99999, "over 99.9 %"), (0.995, "99.5 %")],
)  # fmt: skip
def test_a_share_is_all_or_none_only_when_it_is(share: float, text: str) -> None:
    """A few elements are never shown as 0 %, nor all but a few as 100 %."""
    assert percent(share) == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (3_250_586, "3.1 MiB"), (1 << 37, "128 GiB")],
)  # fmt: skip
def test_sizes_are_in_binary_units(nbytes: int, text: str) -> None:
    """Bytes are shown in KiB, MiB and so on with one decimal below 100."""
    assert size(nbytes) == text


def test_counts_agree_with_their_noun() -> None:
    """One is singular, everything else plural, thousands are apart."""
    assert [counted(n, "rank") for n in (0, 1, 2048)] == ["0 ranks", "1 rank", "2,048 ranks"]
    assert amount(1_000_000) == "1,000,000"


def test_ranks_are_folded() -> None:
    """Runs of ranks are written as ranges."""
    assert ranks([3]) == "rank 3"
    assert ranks([0, 1, 2, 5, 7, 6]) == "ranks 0-2, 5-7"


def test_elements_keep_four_digits_and_integers_all() -> None:
    """A float element has four digits, an integer every digit, a complex one its text."""
    assert [element(v) for v in (0.471312, 123456789, True, "1+2j")] == ["0.4713", "123456789", "True", "1+2j"]  # fmt: skip


def test_unprintable_text_is_escaped() -> None:
    """Control characters and line ends of a capture's text are escaped, letters are kept."""
    assert safe("a\x1b[31m\nb é") == "a\\x1b[31m\\nb é"
