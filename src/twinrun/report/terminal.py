"""A page on a terminal: aligned and wrapped to its width, coloured only where that is wanted."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from twinrun.report.figures import safe
from twinrun.report.page import Field, Fields, Headline, Page, Table, Tone

_STYLES: dict[Tone, str] = {
    "good": "bold green", "bad": "bold red", "unsure": "bold yellow", "plain": "",
}  # fmt: skip
_NARROWEST = 40
_LABEL = 10  # the width of the label column, so that pages of one family line up


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command to end (rich would exit with 1, which says "a difference")."""
        raise BrokenPipeError


def console(stream: TextIO, width: int | None = None) -> Console:
    """A console on ``stream``: colour only on a terminal that has it, never with ``NO_COLOR``."""
    return _Console(
        file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True
    )


def show(page: Page, to: Console) -> None:
    """Print ``page`` on ``to``; characters that its encoding lacks are escaped."""
    for line in _lines(page, max(to.width, _NARROWEST)):
        to.print(_encodable(line, to.encoding), soft_wrap=True)


def _lines(page: Page, width: int) -> Iterator[Text]:
    for block in page:
        if block is None:
            yield Text()
        elif isinstance(block, Headline):
            yield from _headline(block, width)
        elif isinstance(block, Fields):
            yield from _fields(block, width)
        else:
            yield from _table(block)


def _headline(block: Headline, width: int) -> Iterator[Text]:
    """The words, then the parts three columns apart; a part that does not fit starts a line."""
    line = Text(block.words, style=_STYLES[block.tone])
    filled = False
    for part in block.parts:
        if filled and line.cell_len + 3 + cell_len(part) > width:
            yield line
            line = Text(" " * 2)
        elif line.cell_len > 2:
            line.append("   ")
        line.append(safe(part), style="bold")
        filled = True
    yield line


def _fields(block: Fields, width: int) -> Iterator[Text]:
    labels = [cell_len(field.label) for field in block.fields]
    column = max([*labels, _LABEL - 2]) + 2
    for field in block.fields:
        yield from _field(field, block.indent, column, width)


def _field(field: Field, indent: int, column: int, width: int) -> Iterator[Text]:
    label = field.label
    for text in field.lines:
        room = max(width - indent - column, _NARROWEST // 2)
        for part in _wrapped(safe(text), room, field.verbatim):
            line = Text(" " * indent)
            line.append(label.ljust(column), style=_STYLES[field.tone] if label else "")
            line.append(part)
            line.rstrip()
            yield line
            label = ""


def _wrapped(text: str, width: int, verbatim: bool) -> list[str]:
    if verbatim or cell_len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _table(block: Table) -> Iterator[Text]:
    held = [
        n for n in range(len(block.rows[0]) if block.rows else 0) if any(r[n] for r in block.rows)
    ]
    rows = [[safe(row[n]) for n in held] for row in block.rows]
    right = [n in block.right for n in held]
    titled = [[block.header[n] for n in held], *rows] if block.header else rows
    widths = [max(cell_len(cell) for cell in column) for column in zip(*titled, strict=True)]
    if block.title:
        yield Text(block.title, style="bold")
    for number, row in enumerate(titled, -1 if block.header else 0):
        cells = [_aligned(*cell) for cell in zip(row, widths, right, strict=True)]
        yield _row(cells, block.indent, number, block.tones)


def _aligned(cell: str, width: int, right: bool) -> str:
    blank = " " * (width - cell_len(cell))
    return blank + cell if right else cell + blank


def _row(cells: list[str], indent: int, number: int, tones: tuple[Tone, ...]) -> Text:
    """The heading (number -1) dim, of other rows the first cell in its tone."""
    line = Text(" " * indent)
    if number < 0:
        line.append("  ".join(cells), style="dim")
    else:
        line.append(cells[0], style=_STYLES[tones[number]] if number < len(tones) else "")
        line.append("".join(f"  {cell}" for cell in cells[1:]))
    line.rstrip()
    return line


def _encodable(line: Text, encoding: str) -> Text:
    try:
        line.plain.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return Text(line.plain.encode("ascii", "backslashreplace").decode("ascii"))
    return line
