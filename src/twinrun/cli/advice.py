"""What to do next, as far as this version can do it."""

from __future__ import annotations

from dataclasses import replace

from twinrun.cli.main import COMMANDS
from twinrun.comparison.result import Result


def possible(result: Result) -> Result:
    """The result without advice to run commands that this version does not have."""
    return replace(result, advice=tuple(line for line in result.advice if _possible(line)))


def _possible(line: str) -> bool:
    words = line.split()
    return words[:1] != ["twinrun"] or len(words) < 2 or words[1] in COMMANDS
