"""``twinrun demo``: a planted fault, found."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twinrun.errors import TwinrunError, UnavailableError, UsageError

if TYPE_CHECKING:
    from twinrun.comparison.result import Result

PLACE = "2.down_proj"
PLANTED = "model.layers.2.mlp.down_proj:output"
_PROGRAM = Path(__file__).with_name("demo_program.py")
_MARK = '"""A program that knows nothing of Twinrun'
_LONGEST_S = 300

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
@click.option("--clean", is_flag=True, help="Plant no fault: the same runs, ending in agreement.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo"),
    show_default=True,
    help="Where the program, its model and both captures go.",
)
def command(clean: bool, out: Path) -> int:
    """Plant a fault in a small tensor-parallel model and find it.

    A small random Llama (no download) runs as one process and again under torchrun with 2
    tensor-parallel ranks, which skip one all-reduce. Both runs are captured and compared. Exits
    0 when what was found is exactly what was planted. Takes under a minute on two cores.
    """
    if find_spec("transformers") is None:
        raise UnavailableError(
            "The demo runs a Hugging Face model, and transformers is not installed.",
            do="pip install 'twinrun[demo]'",
        )
    program, model = _prepared(out), str(out / "model")
    fault = [] if clean else ["--drop-all-reduce", PLACE]
    name = "clean" if clean else "fault"
    baseline, target = str(out / "tp1"), str(out / f"tp2-{name}")
    _step("make a small random Llama", ["python", program, "make", model])
    _step("run it as one process", [*_observed(baseline), "python", program, "run", model])
    _step(
        "run it on 2 tensor-parallel ranks" + ("" if clean else ", one all-reduce skipped"),
        [*_observed(target), "torchrun", "--nproc-per-node", "2", program, "run", model, *fault],
    )
    result = _compared(baseline, target)
    return _judged(result, clean)


def _observed(directory: str) -> list[str]:
    return ["twinrun", "run", "--out", directory, "--overwrite", "--taps", "modules", "--"]


def _prepared(out: Path) -> str:
    """The program, written to ``out`` where it can be read, changed and run again."""
    program = out / "program.py"
    ours = program.is_file() and program.read_text(encoding="utf-8").startswith(_MARK)
    if out.exists() and not ours and any(out.iterdir()):
        raise UsageError(f"{out} holds files that are not the demo's.", do="choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    program.write_text(_PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    return str(program)


def _step(title: str, words: Sequence[str]) -> None:
    """Run one command as a user would, shown as one would type it; its output only when it fails."""
    print(f"{title}\n  $ {' '.join(words)}", flush=True)
    begun = time.monotonic()
    done = subprocess.run(
        _runnable(words), capture_output=True, text=True, timeout=_LONGEST_S, check=False
    )
    if done.returncode:
        raise TwinrunError(
            f"The demo's own command ended with {done.returncode}.",
            seen="\n".join([" ".join(words), done.stdout, done.stderr]).strip(),
            do="run the command by itself to see more",
        )
    for line in [*done.stdout.splitlines(), *_ours(done.stderr)]:
        print(f"    {line}")
    print(f"    {time.monotonic() - begun:.0f} s\n", flush=True)


def _runnable(words: Sequence[str]) -> list[str]:
    """The same command with this interpreter's own python, torchrun and twinrun."""
    here = {
        "python": [sys.executable],
        "torchrun": [sys.executable, "-m", "torch.distributed.run"],
        "twinrun": [sys.executable, "-m", "twinrun"],
    }
    return [part for word in words for part in here.get(word, [word])]


def _ours(stderr: str) -> list[str]:
    """What twinrun run said, without the list of processes."""
    said = [line for line in stderr.splitlines() if line.startswith("twinrun: ")]
    return [line for line in said if not line.startswith("twinrun:   ") and line[-1] != ":"]


def _compared(baseline: str, target: str) -> Result:
    from twinrun.cli.advice import possible
    from twinrun.comparison.compare import compare
    from twinrun.report import terminal
    from twinrun.report.comparison import comparison_page

    print(f"compare\n  $ twinrun compare {baseline} {target}\n", flush=True)
    result = possible(compare(baseline, target))
    terminal.show(comparison_page(result, top=3), terminal.console(sys.stdout))
    return result


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
