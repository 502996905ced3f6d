"""``twinrun run``: observe a program that knows nothing of Twinrun."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from twinrun.cli.graft_options import Bytes, asked_for, role_options, settings_of


@click.command("run", context_settings={"ignore_unknown_options": False})
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the capture goes; must not exist.",
)
@click.option("--overwrite", is_flag=True, help="Replace the capture that DIR holds.")
@click.option(
    "--taps",
    default="blocks",
    show_default=True,
    metavar="WORD|GLOBS",
    help="blocks, modules, leaves, none, or globs over module paths with commas.",
)
@click.option(
    "--filter", "wanted", default="", metavar="EXPR", help="Only records that this takes."
)
@click.option("--steps", default="", metavar="A:B", help="Only these steps, e.g. 0:3.")
@click.option(
    "--mode",
    default="values",
    show_default=True,
    type=click.Choice(["values", "stats"]),
    help="Whole tensors, or their statistics only.",
)
@click.option(
    "--gradients", is_flag=True, help="Gradients of tapped tensors and of parameters too."
)
@click.option(
    "--parameters", is_flag=True, help="Parameters and buffers too, once at the first step."
)
@click.option(
    "--shadow",
    default="",
    metavar="GLOBS",
    help="Run these modules once more, one precision up, and record what they give.",
)
@click.option(
    "--operators",
    default="",
    metavar="GLOBS",
    help="Record every operator that these modules' own code executes.",
)
@click.option(
    "--perturb", default=0, type=click.IntRange(0), metavar="SEED",
    help="Move the first inputs by about one unit in the last place; 0 is off.",
)  # fmt: skip
@click.option("--mesh", default="", metavar="tp=2,dp=2", help="Rank axes, outermost first.")
@click.option(
    "--max-bytes", default=0, type=Bytes(), show_default="no bound", help="Stop recording there."
)
@click.option("--print-env", is_flag=True, help="Start nothing; print what makes a worker join.")
@role_options
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD...")
def command(
    out: Path,
    overwrite: bool,
    taps: str,
    wanted: str,
    steps: str,
    mode: str,
    gradients: bool,
    parameters: bool,
    shadow: str,
    operators: str,
    perturb: int,
    mesh: str,
    max_bytes: int,
    print_env: bool,
    program: tuple[str, ...],
    **graft: Any,
) -> int:
    """Run CMD and observe every Python process that it starts, on any number of ranks.

    The program needs no change: modules are observed where they are called. Returns CMD's own exit
    code where it is not zero, else 2 where no process joined or nothing was recorded, 3 where the
    capture is incomplete. With --graft-role it takes part in a graft with a job started elsewhere.
    """
    from twinrun.recorder.options import Options
    from twinrun.recorder.runner import print_environment, run_program
    from twinrun.recorder.taps import Taps

    Taps.parse(taps)
    options = Options(
        filter=wanted,
        steps=steps,
        mode=mode,
        taps=taps,
        gradients=gradients,
        parameters=parameters,
        mesh=mesh,
        max_bytes=max_bytes,
        shadow=shadow,
        operators=operators,
        perturb=perturb,
    )
    grafts = asked_for(graft)
    settings = settings_of(**graft, mesh=mesh) if grafts else None
    if print_env:
        found = print_environment(out, options, overwrite=overwrite)
        found |= settings.to_environment() if settings is not None else {}
        for name, value in found.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        return 0
    if settings is not None:
        settings.export()
    code = run_program(program, out=out, options=options, overwrite=overwrite, say=_say)
    return _grafted(out, code) if grafts else code


def _grafted(out: Path, code: int) -> int:
    """The exit code, once what came of the graft is counted: 3 for failures the program was spared."""
    from twinrun.grafting.account import read_account

    account = read_account([out])
    for line in account.lines():
        _say(line)
    return code or (3 if account.contained else 0)


def _say(line: str) -> None:
    click.echo(f"twinrun: {line}", err=True)
