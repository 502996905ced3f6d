"""``twinrun compare``: two captures held side by side."""

from __future__ import annotations

import sys

import click

from twinrun.errors import UsageError

_FILE = click.Path(dir_okay=False)


@click.command("compare")
@click.argument("baseline")
@click.argument("target")
@click.option(
    "--map", "map_file", type=_FILE, help="YAML file that pairs names which differ (docs/map.md)."
)
@click.option(
    "--noise",
    metavar="DIR",
    multiple=True,
    help="A second run known to be right: it measures the floor; may be repeated.",
)
@click.option("--layouts", type=_FILE, help="YAML file from name globs to dims (docs/dims.md).")
@click.option(
    "--settings", type=_FILE, help="YAML file with floors, k and allow (docs/verdicts.md)."
)
@click.option(
    "--allow", metavar="GLOB", multiple=True, help="Points that may differ; may be repeated."
)
@click.option(
    "--floor", "floors", metavar="GLOB=VALUE", multiple=True,
    help="How far apart these points may lie (relative L2); may be repeated.",
)  # fmt: skip
@click.option(
    "--k", metavar="[GLOB=]VALUE", multiple=True, help="A distance above K floors differs."
)
@click.option(
    "--skip-steps", metavar="N[,M]", default="0", help="Drop the first N steps (of the target: M)."
)
@click.option("--hints", type=click.Choice(["first", "all"]), default="first", show_default=True,
              help="Explain the first divergence and 20 more points, or all.")  # fmt: skip
@click.option(
    "--top", type=click.IntRange(0), default=10, show_default=True, help="List that many points."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines, one a point (docs/json.md).")
@click.option(
    "--report",
    metavar="FILE",
    type=_FILE,
    help="Write an HTML page that opens offline (docs/report.md).",
)
@click.option(
    "--report-paths", is_flag=True, help="Leave paths and host names in the report and the plots."
)
@click.option(
    "--plots",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Write the report's charts as PNGs (needs twinrun[plots]).",
)
def command(
    baseline: str,
    target: str,
    map_file: str | None,
    noise: tuple[str, ...],
    layouts: str | None,
    settings: str | None,
    allow: tuple[str, ...],
    floors: tuple[str, ...],
    k: tuple[str, ...],
    skip_steps: str,
    hints: str,
    top: int,
    as_json: bool,
    report: str | None,
    report_paths: bool,
    plots: str | None,
) -> int:
    """Find the first tensor in which two runs part, and say how.

    BASELINE and TARGET are directories that twinrun run wrote. Captures of one run that lie on
    several nodes are joined with commas: nodeA/run,nodeB/run.
    """
    from twinrun.cli.advice import possible
    from twinrun.cli.reporting import Captures, check_output, write
    from twinrun.comparison.compare import compare
    from twinrun.report import jsonlines, progress, terminal
    from twinrun.report.comparison import comparison_page

    # Usage errors first: nothing is read before every option is known to be right.
    floor, every_k, skipped = _by_glob(floors, "--floor"), _k(k), _steps(skip_steps)
    check_output(report, plots)
    with progress.bar(sys.stderr, "comparing") as told:
        found = compare(
            baseline,
            target,
            map=map_file,
            noise=noise,
            layouts=layouts,
            settings=settings,
            allow=allow,
            floor=floor,
            k=every_k,
            skip_steps=skipped,
            hints=hints,
            progress=told,
        )
    result = possible(found)
    if as_json:
        for line in jsonlines.comparison_lines(result):
            print(line)
    else:
        terminal.show(comparison_page(result, top), terminal.console(sys.stdout))
    if report or plots:
        captures = Captures(baseline, target, map_file, layouts, skipped)
        write(result, None, captures, report, plots, paths=report_paths)
    return result.exit_code


def _by_glob(texts: tuple[str, ...], option: str) -> dict[str, float]:
    """``GLOB=VALUE`` texts; a glob may itself hold ``=``, so the last one parts them."""
    return {_glob(text, option): _number(text.rpartition("=")[2], option) for text in texts}


def _glob(text: str, option: str) -> str:
    glob, parted, _ = text.rpartition("=")
    if not glob or not parted:
        raise UsageError(
            f"{option} {text!r} names no points.", expected="GLOB=VALUE, as in '*.mlp:output=1e-4'"
        )
    return glob


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a number.") from None


def _k(texts: tuple[str, ...]) -> dict[str, float] | None:
    """K by glob; a bare number is for every point."""
    given = tuple(text if "=" in text else f"*={text}" for text in texts)
    return _by_glob(given, "--k") if given else None


def _steps(text: str) -> tuple[int, int]:
    """``N`` for both sides or ``N,M`` for baseline and target."""
    parts = text.split(",")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(
            f"--skip-steps {text!r} is not a number of steps.", expected="N for both runs, or N,M"
        )
    return int(parts[0]), int(parts[-1])
