"""The kinds of value a variable may hold: each parses a text strictly and renders it back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Kind(Protocol[T]):
    """Parses one text into a value; ``ValueError`` carries what was expected instead."""

    @property
    def label(self) -> str:
        """The kind as the table of variables shows it."""

    def parse(self, text: str) -> T:
        """The value of ``text``, or ``ValueError`` with what was expected."""

    def render(self, value: T) -> str:
        """The text that parses back to ``value``."""


@dataclass(frozen=True, slots=True)
class Flag:
    """On or off, in one of eight spellings (any case)."""

    label: str = "flag"

    def parse(self, text: str) -> bool:
        folded = text.lower()
        if folded in _TRUE or folded in _FALSE:
            return folded in _TRUE
        raise ValueError(f"one of {', '.join(_TRUE)}, {', '.join(_FALSE)}")

    def render(self, value: bool) -> str:
        return "1" if value else "0"


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number within closed bounds."""

    least: int | None = None
    most: int | None = None

    @property
    def label(self) -> str:
        return "integer"

    def parse(self, text: str) -> int:
        # int() also takes '1_000', ' 7 ' and other scripts' digits: typing slips, not numbers.
        if not (text.lstrip("-").isascii() and text.removeprefix("-").isdigit()):
            raise ValueError(f"a whole number{_bounds(self.least, self.most)}")
        value = int(text)
        if not _within(value, self.least, self.most):
            raise ValueError(f"a whole number{_bounds(self.least, self.most)}")
        return value

    def render(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Number:
    """A finite decimal number within closed bounds."""

    least: float | None = None
    most: float | None = None

    @property
    def label(self) -> str:
        return "number"

    def parse(self, text: str) -> float:
        wanted = f"a number{_bounds(self.least, self.most)}"
        if text != text.strip() or "_" in text:
            raise ValueError(wanted)
        try:
            value = float(text)
        except ValueError:
            raise ValueError(wanted) from None
        if value - value != 0 or not _within(value, self.least, self.most):
            raise ValueError(wanted)
        return value

    def render(self, value: float) -> str:
        return repr(value)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes: ``4096``, ``96KiB``, ``4MiB``, ``1GiB``."""

    label: str = "size"

    def parse(self, text: str) -> int:
        digits = text.rstrip("BGKMi")
        unit = text[len(digits) :] or "B"
        if not (digits.isascii() and digits.isdigit()) or unit not in _SIZES:
            raise ValueError("a number of bytes such as 4096, 96KiB, 4MiB or 1GiB")
        return int(digits) * _SIZES[unit]

    def render(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words, spelled exactly."""

    options: tuple[str, ...]

    @property
    def label(self) -> str:
        return " \\| ".join(self.options)

    def parse(self, text: str) -> str:
        if text not in self.options:
            raise ValueError(f"one of {', '.join(self.options)}")
        return text

    def render(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """Any text; empty only where that means something (``CUDA_VISIBLE_DEVICES=``)."""

    empty: bool = False
    label: str = "text"

    def parse(self, text: str) -> str:
        if not text and not self.empty:
            raise ValueError("a text that is not empty (unset the variable to leave it out)")
        return text

    def render(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Directory:
    """A path; whether it exists is for its reader to say."""

    label: str = "path"

    def parse(self, text: str) -> Path:
        if not text:
            raise ValueError("a path (unset the variable to leave it out)")
        return Path(text)

    def render(self, value: Path) -> str:
        return str(value)


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _bounds(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f", at least {least}"
    return f", at most {most}" if most is not None else ""
