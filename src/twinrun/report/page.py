"""The plain page: what a person is told, as labelled text, before any format is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "bad", "unsure", "plain"]


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict: a word or two in capitals and what it is about, in parts that never break."""

    words: str
    parts: tuple[str, ...] = ()
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Field:
    """One labelled statement; each line starts under the one above and wraps at spaces only.

    An empty label continues the field above. ``verbatim`` lines are to be pasted: they never wrap.
    """

    label: str
    lines: tuple[str, ...]
    tone: Tone = "plain"
    verbatim: bool = False

    @classmethod
    def of(cls, label: str, *lines: str, tone: Tone = "plain") -> Field:
        """A field from its lines."""
        return cls(label, lines, tone)


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields with their labels aligned, ``indent`` columns in."""

    fields: tuple[Field, ...]
    indent: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells in aligned columns; the last column holds names and is never cut.

    A column that is empty in every row is left out.

    ``right`` holds the indices of columns of figures. ``tones`` gives the tone of each row's first cell.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    tones: tuple[Tone, ...] = ()
    indent: int = 2
    title: str = ""


Block = Headline | Fields | Table
Page = Sequence[Block | None]
"""Blocks in order; ``None`` is an empty line."""
