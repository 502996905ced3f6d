"""``twinrun env``: every variable, its value, and where the value came from."""

from __future__ import annotations

from typing import Any

import click

from twinrun.env import Variable, declared, environment, problems
from twinrun.env.page import page, shown

_CLEAN, _WRONG = 0, 2


@click.command("env")
@click.option("--all", "everything", is_flag=True, help="Other programs' variables too.")
@click.option(
    "--set", "only_set", is_flag=True, help="Only those that hold another than the default."
)
@click.option("--markdown", is_flag=True, help="Print docs/env.md instead.")
def command(everything: bool, only_set: bool, markdown: bool) -> int:
    """List the variables that Twinrun reads, with value and source.

    Variables that are unknown or do not parse are listed last, all of them; then it exits 2.
    """
    if markdown:
        click.echo(page(), nl=False)
        return _CLEAN
    rows = [
        variable
        for variable in declared().values()
        if (everything or variable.ours) and not variable.internal
        if not only_set or variable.name in environment()
    ]
    wide = max((len(variable.name) for variable in rows), default=0)
    for variable in rows:
        click.echo(_row(variable, wide))
    found = problems()
    for problem in found:
        click.echo(f"wrong: {problem}")
    return _WRONG if found else _CLEAN


def _row(variable: Variable[Any, Any], wide: int) -> str:
    text = environment().get(variable.name)
    value = shown(variable) if text is None else text
    unit = f" {variable.unit}" if variable.unit and value != "-" else ""
    return f"{variable.name:<{wide}}  {value + unit:<12}  {variable.source()}   {variable.help}"
