"""The comparison's report, as text and as JSON lines, against golden files."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from comparisons import EVERY, agreement, divergence
from golden import assert_golden

from twinrun.report.comparison import comparison_page
from twinrun.report.jsonlines import comparison_lines
from twinrun.report.terminal import console, show


def told(page: object, width: int = 80) -> str:
    out = io.StringIO()
    show(page, console(out, width))  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("name", EVERY)
def test_golden_text(name: str) -> None:
    """Each ending reads exactly like its golden file at 80 columns."""
    assert_golden(f"comparison-{name}.txt", told(comparison_page(EVERY[name]())))


@pytest.mark.parametrize("name", EVERY)
def test_golden_json(name: str) -> None:
    """Each ending gives exactly the JSON lines of its golden file."""
    lines = "".join(f"{line}\n" for line in comparison_lines(EVERY[name]()))
    assert_golden(f"comparison-{name}.jsonl", lines)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_names_are_never_cut(width: int) -> None:
    """Whatever the width, a point's name stands whole on one line, to be pasted."""
    result = divergence()
    long = f"model.{'very_long_module.' * 8}mlp:output"
    rows = (*result.rows[:2], replace(result.rows[2], name=long))
    lines = told(comparison_page(replace(result, rows=rows)), width).splitlines()
    for name in (long, "model.layers.0.mlp.experts:output"):
        assert any(name in line for line in lines)


def test_no_colour_in_a_pipe() -> None:
    """Nothing but text goes to what is not a terminal."""
    assert "\x1b" not in told(comparison_page(divergence()))


def test_a_capture_cannot_drive_the_terminal() -> None:
    """Control characters in names from a capture are shown escaped."""
    result = divergence()
    hostile = replace(result.rows[2], name="model\x1b[2J\n\rforged:output")
    text = told(comparison_page(replace(result, rows=(*result.rows[:2], hostile))))
    assert "\x1b" not in text
    assert r"model\x1b[2J\n\rforged:output" in text


def test_a_plain_ascii_terminal_gets_plain_ascii() -> None:
    """A stream without the name's characters gets escapes, not an exception."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    result = divergence()
    named = replace(result.rows[2], name="modèle:output")
    show(comparison_page(replace(result, rows=(*result.rows[:2], named))), console(stream, 80))
    stream.flush()
    assert rb"mod\xe8le:output" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_top_limits_the_lists_and_says_what_is_left() -> None:
    """--top N shows N further points and names the option that shows the rest."""
    assert "and 8 more points (--top 13)" in told(comparison_page(divergence(), top=5))
    assert "(--top" not in told(comparison_page(divergence(), top=13))


def test_json_lines_are_strict_json() -> None:
    """Every line parses by the letter of the standard: NaN and infinities are strings."""

    def refuse(constant: str) -> float:
        raise ValueError(constant)

    for build in EVERY.values():
        parsed = [json.loads(text, parse_constant=refuse) for text in comparison_lines(build())]
        assert parsed[0]["type"] == "comparison"
        assert parsed[-1]["type"] == "summary"
        assert parsed[-1]["exit_code"] == build().exit_code


def test_agreement_is_one_verdict_line() -> None:
    """When all is well the page says AGREE once and holds no list."""
    text = told(comparison_page(agreement()))
    assert text.count("AGREE") == 1
    assert "0.4 x what is allowed, at lm_head:output" in text
