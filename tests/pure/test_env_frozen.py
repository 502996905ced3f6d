"""The surface of variables and launch flags is frozen; a change to it is a change to these lists."""

from __future__ import annotations

from pathlib import Path

import click
from golden import assert_golden

from twinrun.cli.launch import command as launch
from twinrun.env import declared
from twinrun.env.page import page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_variables_are_frozen() -> None:
    """Adding, renaming or retyping a variable is noticed here (make golden accepts it)."""
    rows = [f"{each.name} {each.kind.label} {each.default}" for each in declared().values()]
    assert_golden("variables.txt", "\n".join(sorted(rows)) + "\n")


def test_the_flags_of_launch_are_frozen() -> None:
    """Adding, renaming or retyping a flag is noticed here (make golden accepts it)."""
    rows = []
    for parameter in launch.params:
        if isinstance(parameter, click.Option):
            rows.append(f"{' '.join(parameter.opts)} {parameter.type.name}")
    assert_golden("launch-flags.txt", "\n".join(sorted(rows)) + "\n")


def test_the_page_of_variables_is_up_to_date() -> None:
    """docs/env.md is what the declarations say."""
    written = (DOCS / "env.md").read_text(encoding="utf-8")
    assert written == page(), "run: twinrun env --markdown > docs/env.md"
