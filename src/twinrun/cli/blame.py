"""``twinrun blame``: which module is at fault, and the proof."""

from __future__ import annotations

import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from twinrun.diagnosis.finding import Finding
    from twinrun.diagnosis.passes import Passes

_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.command("blame")
@click.option("--baseline", metavar="CMD", help="The run that is trusted, as one quoted command.")
@click.option("--target", metavar="CMD", help="The run under test, as one quoted command.")
@click.option("--baseline-mesh", default="", metavar="tp=4", help="The baseline's rank axes.")
@click.option("--target-mesh", default="", metavar="tp=2", help="The target's rank axes.")
@click.option("--baseline-gpus", default="", metavar="0,1", help="CUDA_VISIBLE_DEVICES there.")
@click.option("--target-gpus", default="", metavar="2,3", help="CUDA_VISIBLE_DEVICES there.")
@click.option(
    "--shadows",
    type=click.Choice(["auto", "all", "off"]),
    default="auto",
    show_default=True,
    help="Run modules once more one precision up: the doubtful ones, all that moved, or none.",
)
@click.option("--no-operators", is_flag=True, help="Do not look at the operators of the suspects.")
@click.option("--gradients", is_flag=True, help="The backward pass too.")
@click.option("--live", is_flag=True, help="Run both programs in step instead of from a capture.")
@click.option(
    "--noise",
    metavar="DIR",
    multiple=True,
    help="A second run known to be right, for the floors of the runs as they go; may be repeated.",
)
@click.option(
    "--work", type=_DIRECTORY, metavar="DIR", help="Keep every pass's capture and output there."
)
@click.option("--report", type=click.Path(dir_okay=False), metavar="FILE", help="An HTML page.")
@click.option(
    "--plots",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="PNGs of the report's charts (needs the extra plots).",
)
@click.option("--report-paths", is_flag=True, help="Show paths and host names in the report.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines (docs/json.md).")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[CAPTURE -- CMD...]")
def command(
    baseline: str | None,
    target: str | None,
    baseline_mesh: str,
    target_mesh: str,
    baseline_gpus: str,
    target_gpus: str,
    shadows: str,
    no_operators: bool,
    gradients: bool,
    live: bool,
    noise: tuple[str, ...],
    work: Path | None,
    report: str | None,
    plots: str | None,
    report_paths: bool,
    as_json: bool,
    words: tuple[str, ...],
) -> int:
    """Name the module that computes something else when it is given the same inputs, and prove it.

    Runs both commands several times, each pass named before it starts: as they are, with every
    module given the baseline's inputs, and with the suspects' outputs replaced. With CAPTURE
    (twinrun run --taps modules --parameters) that capture stands in for the baseline. Exits with 0
    where nothing is to blame, 1 with a fault, 2 where it could not be done, 3 where it cannot tell.
    """
    from twinrun.cli import reporting
    from twinrun.diagnosis.blame import blame
    from twinrun.diagnosis.options import Wishes
    from twinrun.diagnosis.passes import Program

    reporting.check_output(report, plots)
    capture, sides = _sides(baseline, target, words)
    programs = [
        None if text is None else Program(text, mesh, gpus)
        for text, mesh, gpus in (
            (sides[0], baseline_mesh, baseline_gpus),
            (sides[1], target_mesh, target_gpus),
        )
    ]
    wishes = Wishes(shadows=shadows, operators=not no_operators, gradients=gradients, noise=noise)
    with ExitStack() as held:
        place = _work(work, held)
        passes = _passes(programs, place, capture, live)
        passes.kept = work is not None
        finding = blame(passes, wishes)
        _show(finding, as_json)
        if report is not None or plots is not None:
            seen = finding.comparison
            captures = reporting.Captures(seen.baseline.path, seen.target.path)
            reporting.write(seen, finding, captures, report, plots, paths=report_paths)
    return finding.exit_code


def _sides(
    baseline: str | None, target: str | None, words: tuple[str, ...]
) -> tuple[Path | None, tuple[tuple[str, ...] | None, tuple[str, ...]]]:
    """(capture or None, both commands); UsageError for anything but one baseline and one target."""
    from twinrun.errors import UsageError
    from twinrun.grafting.jobs import split_command

    if baseline is not None and target is not None and not words:
        both = (split_command(baseline, "--baseline"), split_command(target, "--target"))
        return None, both
    if baseline is None and target is None and len(words) >= 2:
        path = Path(words[0])
        if not path.exists():
            raise UsageError(f"{path} is no capture", do="twinrun run --out DIR --taps modules ...")
        return path, (None, split_command(shlex.join(words[1:]), "CMD"))
    raise UsageError(
        "blame takes one baseline and one target",
        seen=" ".join(words) or "one of them only",
        do='twinrun blame --baseline "CMD" --target "CMD", or twinrun blame runs/a -- CMD',
    )


def _work(work: Path | None, held: ExitStack) -> Path:
    from twinrun.errors import UsageError

    if work is None:
        return Path(held.enter_context(tempfile.TemporaryDirectory(prefix="twinrun-blame-")))
    if work.exists() and any(work.iterdir()):
        raise UsageError(f"{work} holds files already", do="choose another --work")
    return work


def _passes(programs: list, place: Path, capture: Path | None, live: bool) -> Passes:  # type: ignore[type-arg]
    from twinrun.diagnosis.passes import Passes
    from twinrun.errors import UsageError

    if live and capture is not None:
        raise UsageError("--live runs the baseline, but CAPTURE stands in for it")
    return Passes(programs[0], programs[1], place, _say, capture, live)


def _show(finding: Finding, as_json: bool) -> None:
    from twinrun.report import jsonlines, terminal
    from twinrun.report.blame import blame_page

    if as_json:
        for line in jsonlines.blame_lines(finding):
            print(line)
    else:
        terminal.show(blame_page(finding), terminal.console(sys.stdout))


def _say(line: str) -> None:
    click.echo(f"twinrun: {line}", err=True)
