"""``--steps 0:3``: which steps are recorded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from twinrun.errors import UsageError

_SLICE = re.compile(r"(\d*):(\d*)(?::(\d+))?")
_LARGEST = 1 << 62


@dataclass(frozen=True, slots=True)
class Steps:
    """A union of slices over step numbers; the empty text takes every step."""

    text: str
    ranges: tuple[range, ...]

    @classmethod
    def parse(cls, text: str) -> Steps:
        """Read ``3``, ``0:3``, ``10:``, ``::5`` or a list such as ``0,10:12``; UsageError."""
        words = [word.strip() for word in text.split(",")] if text.strip() else []
        return cls(text, tuple(_range(word, text) for word in words))

    def __contains__(self, step: int) -> bool:
        return not self.ranges or any(step in taken for taken in self.ranges)


def _range(word: str, text: str) -> range:
    if word.isascii() and word.isdigit() and len(word) < 19:
        return range(int(word), int(word) + 1)
    match = _SLICE.fullmatch(word)
    if match is None or max(map(len, word.split(":"))) > 18 or match[3] == "0":
        raise UsageError(
            f"steps {text!r} do not parse at {word!r}",
            expected="a step (3), a slice (0:3, 10:, ::5) or several with commas; negative ones are unknown while a run goes on",
        )
    start, stop, stride = match.groups()
    return range(int(start or 0), int(stop) if stop else _LARGEST, int(stride or 1))
