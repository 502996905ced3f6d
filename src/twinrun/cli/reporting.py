"""``--report`` and ``--plots``, for every command that ends in a comparison."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from twinrun.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from twinrun.comparison.picture import Pictures
    from twinrun.comparison.result import Result
    from twinrun.diagnosis.finding import Finding

PLOTTED = 24
"""Points that get a PNG, the most worthy first: each takes a third of a second."""


@dataclass(frozen=True, slots=True)
class Captures:
    """What a result was made of: pictures are taken from the same values."""

    baseline: str
    target: str
    map: str | None = None
    layouts: str | None = None
    skip_steps: tuple[int, int] = (0, 0)


def check_output(report: str | None, plots: str | None) -> None:
    """Refuse, before anything is read, what could not be written in the end."""
    if report and not Path(report).absolute().parent.is_dir():
        raise UsageError(
            f"--report {report!r} lies in no directory that exists.", do="make the directory first"
        )
    if plots and find_spec("matplotlib") is None:
        raise UnavailableError(
            "--plots draws with matplotlib, and matplotlib is not installed.",
            do="pip install 'twinrun[plots]', or use --report, which needs nothing",
        )


def write(
    result: Result,
    finding: Finding | None,
    captures: Captures,
    report: str | None,
    plots: str | None,
    *,
    paths: bool,
) -> None:
    """Take the pictures, write what was asked for, and say so on stderr."""
    from twinrun.report.figures import counted, size
    from twinrun.report.html import document_of, write_report

    drawn = _pictures(result, captures)
    if report:
        nbytes = write_report(report, result, finding, paths, drawn)
        print(f"twinrun: report in {report} ({size(nbytes)})", file=sys.stderr)
    if plots:
        from twinrun.report.plots import write_plots

        few = replace(drawn, drawn=dict(list(drawn.drawn.items())[:PLOTTED]))
        count = write_plots(Path(plots), document_of(result, finding, paths, few))
        left = len(drawn.drawn) - len(few.drawn)
        rest = (
            f"; {counted(left, 'more point')} would be in --report" if left and not report else ""
        )
        print(f"twinrun: {counted(count, 'plot')} in {plots}{rest}", file=sys.stderr)


def _pictures(result: Result, captures: Captures) -> Pictures:
    from twinrun.comparison.picturing import pictures
    from twinrun.report import progress

    with progress.bar(sys.stderr, "drawing") as told:
        return pictures(
            result,
            captures.baseline,
            captures.target,
            map=captures.map,
            layouts=captures.layouts,
            skip_steps=captures.skip_steps,
            progress=told,
        )
