"""The words of a filter text, each with its position."""

from __future__ import annotations

import re
from dataclasses import dataclass

from twinrun.errors import FilterError

_WORDS = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<operator><=|>=|==|!=|!~|<|>|~|\(|\)|\[|\]|,)
  | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<number>[+-]?(?:\d+\.\d+(?:[eE][+-]?\d+)?|\d+(?:[eE][+-]?\d+)?)(?![\w.*?:/-]))
  | (?P<word>[\w.*?:/@+%$-]+)
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Word:
    """One word: its sort (operator, text, number, word, end), its value, its place in the text."""

    sort: str
    value: str
    at: int


def split_words(source: str) -> list[Word]:
    """The words of ``source`` and an ``end`` after them; FilterError at a stray character."""
    words, at = [], 0
    while at < len(source):
        match = _WORDS.match(source, at)
        if match is None:
            what = "a quote that is never closed" if source[at] in "\"'" else "an unknown character"
            raise filter_error(source, at, f"{what}: {source[at]!r}")
        sort = match.lastgroup or ""
        if sort != "space":
            words.append(Word(sort, _value(sort, match.group()), at))
        at = match.end()
    words.append(Word("end", "", len(source)))
    return words


def filter_error(source: str, at: int, what: str, do: str | None = None) -> FilterError:
    """An error that shows the text with a caret under the position."""
    line = source.replace("\n", " ").replace("\t", " ")
    start = max(0, at - 60)
    shown = line[start : at + 40]
    return FilterError(
        f"filter does not parse: {what}\n    {shown}\n    {' ' * (at - start)}^",
        do=do or 'for instance: layer < 4 and name ~ "*.mlp*" and not kind == gradient',
    )


def _value(sort: str, text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if sort == "text" else text
