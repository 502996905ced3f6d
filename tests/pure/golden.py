"""Golden files: what a text should be, kept beside the tests; ``make golden`` accepts a change."""

from __future__ import annotations

import os
from pathlib import Path

DIRECTORY = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    """``text`` is what the golden file ``name`` holds; with ACCEPT_GOLDEN set the file is rewritten."""
    path = DIRECTORY / name
    if os.environ.get("ACCEPT_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no golden file {path.name}; accept this output with: make golden"
    assert text == path.read_text(encoding="utf-8"), "accept a wanted change with: make golden"
