"""``twinrun graft``: put one run's tensors into the other while both run, or from a capture."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from twinrun.cli.graft_options import settings_of, shared_options

NO_WORK = 2
CONTAINED = 3


@click.command("graft")
@click.argument("capture", required=False, metavar="[CAPTURE]")
@click.option("--baseline", metavar="CMD", help="The run that is trusted, as one quoted command.")
@click.option("--target", required=True, metavar="CMD", help="The run under test.")
@click.option("--baseline-mesh", default="", metavar="tp=4", help="The baseline's rank axes.")
@click.option("--target-mesh", default="", metavar="tp=2", help="The target's rank axes.")
@click.option("--baseline-gpus", default="", metavar="0,1", help="CUDA_VISIBLE_DEVICES there.")
@click.option("--target-gpus", default="", metavar="2,3", help="CUDA_VISIBLE_DEVICES there.")
@click.option("--baseline-ranks", type=int, metavar="N", help="How many ranks it must have.")
@click.option("--target-ranks", type=int, metavar="N", help="How many ranks it must have.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also capture both runs into DIR/baseline and DIR/target; must not exist.",
)
@click.option("--overwrite", is_flag=True, help="Replace the captures that --out holds.")
@click.option(
    "--taps", default="blocks", show_default=True, metavar="WORD|GLOBS", help="What --out records."
)
@shared_options
def command(
    capture: str | None,
    baseline: str | None,
    target: str,
    baseline_mesh: str,
    target_mesh: str,
    baseline_gpus: str,
    target_gpus: str,
    out: Path | None,
    overwrite: bool,
    taps: str,
    **shared: Any,
) -> int:
    """Run two programs and put tensors of one into the other, at the points that a filter names.

    Module inputs and outputs, dumps, parameters (kind == "parameter") and gradients are grafted with
    no change in either program, resharded where the layouts are known. With CAPTURE, that capture
    stands in for the baseline. Returns a program's own exit code where it is not zero, else 3 where
    something failed that the programs were spared, 2 where nothing was grafted.
    """
    from twinrun.errors import UsageError
    from twinrun.grafting.account import read_account
    from twinrun.grafting.jobs import Side, free_port, new_token, run_sides, split_command
    from twinrun.recorder.options import Options
    from twinrun.recorder.taps import Taps

    if (capture is None) == (baseline is None):
        raise UsageError(
            "a graft has one baseline",
            seen="both CAPTURE and --baseline" if capture else "neither CAPTURE nor --baseline",
            do='twinrun graft runs/a --target "CMD", or --baseline "CMD" --target "CMD"',
        )
    Taps.parse(taps)
    shared["address"] = shared["address"] or f"127.0.0.1:{free_port()}"
    shared["source"] = str(Path(capture).absolute()) if capture else ""
    shared["token"] = "" if capture else new_token()
    with tempfile.TemporaryDirectory(prefix="twinrun-graft-") as held:
        place = out if out is not None else Path(held) / "runs"
        sides = []
        for role, text, mesh, gpus in (
            ("baseline", baseline, baseline_mesh, baseline_gpus),
            ("target", target, target_mesh, target_gpus),
        ):
            if text is None:
                continue
            directory = place / role
            settings = settings_of(role=role, mesh=mesh, journal=str(directory / "graft"), **shared)
            options = Options(taps=taps if out is not None else "none", mesh=mesh)
            words = split_command(text, f"--{role}")
            sides.append(Side(words, settings, directory, options, gpus, overwrite=overwrite))
        if out is not None and out.exists() and not overwrite:
            raise UsageError(f"{out} exists", do="give another --out, or --overwrite")
        place.mkdir(parents=True, exist_ok=overwrite)
        codes = run_sides(sides, _say)
        account = read_account([side.directory for side in sides])
    for line in account.lines():
        _say(line)
    failing = [code for code in reversed(codes) if code]
    if failing:
        return failing[0]
    if account.contained:
        return CONTAINED
    if not account.received:
        _say(_nothing(account.processes))
        return NO_WORK
    return 0


def _nothing(processes: int) -> str:
    if not processes:
        return "NOBODY JOINED   no observed module was called in either program, and nothing grafted by name"
    return "NOTHING GRAFTED   no point that both programs reach matched --b2t or --t2b"


def _say(line: str) -> None:
    click.echo(f"twinrun: {line}", err=True)
