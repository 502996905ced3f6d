"""docs/json.md names every field that the JSON lines hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from captures import process, record, run_info
from comparisons import EVERY

from twinrun.report.jsonlines import capture_lines, comparison_lines

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
FREE = {"versions", "options", "counts", "tags", "mesh", "stats", "reports", "roots"}
"""Fields whose own keys are data."""


def fields(value: Any) -> set[str]:
    """Every key of an object and of the objects in it."""
    if isinstance(value, list):
        return {key for item in value for key in fields(item)}
    if not isinstance(value, dict):
        return set()
    inner = {key for name, item in value.items() if name not in FREE for key in fields(item)}
    return set(value) | inner


@pytest.mark.parametrize("name", [*EVERY, "capture"])
def test_every_field_is_documented(name: str) -> None:
    """A field that appears in a line appears in the page."""
    made = (
        comparison_lines(EVERY[name]())
        if name in EVERY
        else capture_lines("runs/a", run_info(), [process()], [record()])
    )
    missing = {key for line in made for key in fields(json.loads(line)) if f"`{key}`" not in PAGE}
    assert not missing
