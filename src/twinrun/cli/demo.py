"""``twinrun demo``: a planted fault, found."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twinrun.cli.demo_steps import PLACE, PLANTED, compared, prepared, step
from twinrun.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from twinrun.comparison.result import Result

_READ_FAULT = f"""\
How to read it
  BROKEN INVARIANT is seen in one run alone: values that should be the same on both ranks are not.
  FIRST DIVERGENCE names the first point, in order of execution, at which the two runs part. All
  points before it agree, so the fault lies between the last point that agreed and this one.
  Every point after it differs too, because it was computed from it: only the first is to blame.
  The hint is a hypothesis that was tested on the recorded values and explains the difference.
  Here the all-reduce after {PLANTED.removesuffix(":output")} was skipped on purpose."""

_READ_CLEAN = """\
How to read it
  Two ranks add in another order than one process does, so most points are not equal bit for bit.
  AGREE says that no point is further apart than rounding explains. Run twinrun demo to see a fault."""


@click.command("demo")
@click.argument("story", required=False, type=click.Choice(["graft"]), metavar="[graft]")
@click.option("--clean", is_flag=True, help="Plant no fault: the same runs, ending in agreement.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo"),
    show_default=True,
    help="Where the program, its model and both captures go.",
)
def command(story: str | None, clean: bool, out: Path) -> int:
    """Plant a fault in a small tensor-parallel model and find it.

    A small random Llama (no download) runs as one process and again under torchrun with 2
    tensor-parallel ranks, which skip one all-reduce. Both runs are captured and compared. Exits
    0 when what was found is exactly what was planted. Takes under a minute on two cores.

    With graft: the fault is healed by giving the ranks the one process's tensor at the faulty point,
    and not by giving them another one.
    """
    if find_spec("transformers") is None:
        raise UnavailableError(
            "The demo runs a Hugging Face model, and transformers is not installed.",
            do="pip install 'twinrun[demo]'",
        )
    if story and clean:
        raise UsageError("--clean plants no fault, so there is nothing to heal", do="leave it out")
    program, model = prepared(out), str(out / "model")
    if story:
        from twinrun.cli.demo_graft import heal

        return heal(program, model, out)
    fault = [] if clean else ["--drop-all-reduce", PLACE]
    name = "clean" if clean else "fault"
    baseline, target = str(out / "tp1"), str(out / f"tp2-{name}")
    step("make a small random Llama", ["python", program, "make", model])
    step("run it as one process", [*_observed(baseline), "python", program, "run", model])
    step(
        "run it on 2 tensor-parallel ranks" + ("" if clean else ", one all-reduce skipped"),
        [*_observed(target), "torchrun", "--nproc-per-node", "2", program, "run", model, *fault],
    )
    result = compared(baseline, target)
    return _judged(result, clean)


def _observed(directory: str) -> list[str]:
    return ["twinrun", "run", "--out", directory, "--overwrite", "--taps", "modules", "--"]


def _judged(result: Result, clean: bool) -> int:
    wrong = _unlike_clean(result) if clean else _unlike_planted(result)
    print(f"\n{_READ_CLEAN if clean else _READ_FAULT}\n")
    if wrong:
        print(f"demo: NOT as expected: {wrong}")
        return 1
    print("demo: the clean runs agree" if clean else "demo: found exactly what was planted")
    return 0


def _unlike_clean(result: Result) -> str:
    return "" if result.verdict == "agree" else f"the clean runs gave {result.verdict!r}"


def _unlike_planted(result: Result) -> str:
    """What of the planted fault was not found, or what was found besides; empty when it is exact."""
    if result.first is None:
        return f"no point differs ({result.verdict})"
    row = result.first.row
    if (row.name, row.step) != (PLANTED, 0):
        return f"the first divergence is {row.point}, planted was {PLANTED} at step 0"
    if row.hint is None or "all-reduce" not in row.hint.text:
        return "the first divergence has no hint of a missing all-reduce"
    if result.counts.get("unmatched") or result.counts.get("unreadable"):
        return "points are unmatched or unreadable"
    return ""
