"""Numbers and names as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def figure(value: float, digits: int = 2) -> str:
    """A measure with few digits: ``0.76``, ``1.2e-6``, ``12``, ``NaN``."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return _plain(value, digits)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{_short(mantissa)}e{int(exponent)}"


def element(value: object) -> str:
    """One element of a tensor: four digits for floats, everything else as it is."""
    return figure(value, 4) if isinstance(value, float) else safe(str(value))


def _plain(value: float, digits: int) -> str:
    text = f"{value:.{digits}g}"
    # Above its digits %g turns to an exponent (1.9e+02); there the integer part says it.
    return f"{value:.0f}" if "e" in text else text


def _short(mantissa: str) -> str:
    return mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa


def percent(share: float) -> str:
    """A share from 0 to 1 in percent, never rounded to 0 or to 100 unless it is that."""
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    hundred = share * 100
    if hundred < 0.1:
        return "under 0.1 %"
    if hundred > 99.9:
        return "over 99.9 %"
    return f"{hundred:.2g} %" if hundred < 99 else f"{hundred:.1f} %"


def amount(count: int) -> str:
    """An integer with its thousands apart: ``2,048``."""
    return f"{count:,}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: ``1 rank``, ``2 ranks``."""
    return f"{amount(count)} {noun if count == 1 else plural or noun + 's'}"


def size(nbytes: int) -> str:
    """A number of bytes in binary units: ``3.1 MiB``."""
    if nbytes < 1024:
        return counted(nbytes, "byte")
    value, unit = float(nbytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if value < 100 else f"{value:.0f} {_UNITS[unit]}"


def shape(sizes: Iterable[int]) -> str:
    """A shape or an index: ``[4, 16, 128]``."""
    return f"[{', '.join(str(size) for size in sizes)}]"


def numbers(held: Iterable[int]) -> str:
    """Integers with runs folded: ``0-3, 6``."""
    runs: list[list[int]] = []
    for number in sorted(set(held)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def ranks(held: Iterable[int]) -> str:
    """Rank numbers with runs folded: ``rank 3``, ``ranks 0-3, 6``."""
    different = set(held)
    return f"rank{'' if len(different) == 1 else 's'} {numbers(different)}"


def safe(text: str) -> str:
    """Text from a capture with everything unprintable escaped, so that it cannot drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
