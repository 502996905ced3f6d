"""Name patterns of a map: text, ``{i}`` for one part of a name, ``{*rest}`` for any text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

_SLOT = re.compile(r"\{(\*?)([A-Za-z_]\w*)(?:([+-])(\d{1,9}))?\}")


@dataclass(frozen=True)
class Slot:
    """A capture; ``shift`` is added to what it holds, a number then."""

    name: str
    anything: bool = False
    shift: int = 0


@dataclass(frozen=True)
class Pattern:
    """Literal texts and captures in turn. ValueError from `parse` where a text is none."""

    text: str
    parts: tuple[str | Slot, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read ``model.layers.{i}.mlp:output``; ``{i+1}`` stands for the number one higher."""
        parts: list[str | Slot] = []
        end = 0
        for found in _SLOT.finditer(text):
            parts.append(text[end : found.start()])
            shift = int(f"{found[3]}{found[4]}") if found[3] else 0
            if found[1] and shift:
                raise ValueError(f"{found[0]} in {text!r}: only a part such as {{i+1}} can shift")
            parts.append(Slot(found[2], bool(found[1]), shift))
            end = found.end()
        parts.append(text[end:])
        stray = next((p for p in parts if isinstance(p, str) and ("{" in p or "}" in p)), None)
        if stray is not None:
            raise ValueError(
                f"{stray!r} in {text!r} is no capture; write {{i}}, {{i+1}} or {{*rest}}"
            )
        made = cls(text, tuple(part for part in parts if part != ""))
        if len(made.names) != len(set(made.names)):
            raise ValueError(f"{text!r} captures one name twice")
        if not made.parts:
            raise ValueError("a pattern is empty")
        return made

    @property
    def names(self) -> tuple[str, ...]:
        """What it captures."""
        return tuple(part.name for part in self.parts if isinstance(part, Slot))

    def match(self, name: str) -> dict[str, str] | None:
        """The captures of a name, shifts undone; None where it does not match."""
        found = self._expression.fullmatch(name)
        if found is None:
            return None
        held = {}
        for part in self.parts:
            if isinstance(part, Slot):
                value = found[part.name]
                if part.shift and (not value.isdecimal() or int(value) < part.shift):
                    return None
                held[part.name] = str(int(value) - part.shift) if part.shift else value
        return held

    def render(self, held: Mapping[str, str]) -> str | None:
        """The name with these captures; None where a shift has no number to work on."""
        told = []
        for part in self.parts:
            if isinstance(part, str):
                told.append(part)
                continue
            value = held[part.name]
            if part.shift and (not value.isdecimal() or int(value) + part.shift < 0):
                return None
            told.append(str(int(value) + part.shift) if part.shift else value)
        return "".join(told)

    def __str__(self) -> str:
        return self.text

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(
            "".join(
                re.escape(part)
                if isinstance(part, str)
                else f"(?P<{part.name}>{'.*' if part.anything else '[^.:]+'})"
                for part in self.parts
            )
        )
