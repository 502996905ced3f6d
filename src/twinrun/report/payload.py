"""A document as the data of its HTML page: compact, and safe inside a script element."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from twinrun.comparison.picture import Cells, Heat, Picture
from twinrun.report.document import Document, Dot, Section
from twinrun.report.figures import element, shape
from twinrun.report.jsonlines import plain
from twinrun.report.page import Field

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"
"""A cell of a map is one of these, five to a decade from `LOWEST` on; ``.`` is no error, ``!`` endless."""
LOWEST, PER_DECADE = -10, 5
_VERDICTS = ("equal", "close", "healed", "allowed", "undecided", "differs", "unmatched", "unreadable")  # fmt: skip


def payload(document: Document) -> str:
    """JSON without ``<``, ``>``, ``&`` and line separators: nothing in it can end its script element."""
    strings = _Strings()
    points = [_point(dot, strings) for dot in document.points]
    data = {
        "title": document.title,
        "tone": document.tone,
        "sections": [_section(one) for one in document.sections],
        "closing": _fields(document.closing),
        "next": document.next,
        "counts": document.counts,
        "runs": [{"label": run.label, "fields": _fields(run.fields)} for run in document.runs],
        "lists": [plain(one) for one in document.lists],
        "notes": document.notes,
        "points": points,
        "pictures": {str(d.position): _picture(d.picture) for d in document.points if d.picture},
        "strings": strings.held,
        "cells": {"digits": DIGITS, "lowest": LOWEST, "perDecade": PER_DECADE},
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


class _Strings:
    """Texts by number, each held once: points have most of their sentences in common."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self._at: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        at = self._at.setdefault(text, len(self.held))
        if at == len(self.held):
            self.held.append(text)
        return at


def _point(dot: Dot, strings: _Strings) -> list[Any]:
    apart = dot.isolated
    return [
        dot.step, strings(dot.name), dot.occurrence, int(dot.recompute), _VERDICTS.index(dot.verdict),
        _number(dot.error), _number(dot.allowed), _number(dot.undecided_to), _number(dot.worst_allowed),
        strings(dot.layout), strings(dot.reason), strings(dot.no_picture),
        [[strings(f.label), f.tone[0], int(f.verbatim), *map(strings, f.lines)] for f in dot.fields],
        [_number(apart.error), _number(apart.allowed), strings(apart.state)] if apart else 0,
    ]  # fmt: skip


def _section(one: Section) -> dict[str, Any]:
    return {
        "words": one.words, "parts": one.parts, "tone": one.tone, "fields": _fields(one.fields),
        "position": one.position,
    }  # fmt: skip


def _fields(fields: Iterable[Field]) -> list[list[Any]]:
    return [[f.label, f.tone[0], int(f.verbatim), *f.lines] for f in fields]


def _number(value: float | None) -> float | str | None:
    """Four digits are more than anybody reads off; NaN and infinities become strings."""
    if value is None or (math.isfinite(value) and value == 0):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else str(plain(value))


def _picture(picture: Picture | None) -> dict[str, Any]:
    assert picture is not None
    held = picture.histogram
    return {
        "elements": picture.elements,
        "looked": picture.looked_at,
        "histogram": [held.lowest, held.per_decade, held.zeros, held.nonfinite, held.counts],
        "heat": _heat(picture.heat),
        "worst": [
            [shape(one.index), element(one.baseline), element(one.target), _number(one.error)]
            for one in picture.worst
        ],
        "side": picture.rank_side,
        "ranks": [
            [one.rank, one.held, _number(one.relative_l2), int(one.addend), _heat(one.heat)]
            for one in picture.ranks
        ],
        "notes": picture.notes,
    }


def _heat(heat: Heat) -> list[Any]:
    return [heat.rows, heat.columns, cells_text(heat.cells)]


def cells_text(cells: Cells) -> list[str]:
    """One character a cell, one string a row of cells."""
    return ["".join(map(_cell, row)) for row in cells]


def _cell(error: float) -> str:
    if error == 0:
        return "."
    if not math.isfinite(error):
        return "!"
    level = math.floor((math.log10(error) - LOWEST) * PER_DECADE)
    return DIGITS[min(max(level, 0), len(DIGITS) - 1)]
