"""``twinrun demo graft``: the planted fault healed by one tensor of the other run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from twinrun.cli.demo_steps import PLACE, PLANTED, compared, step

if TYPE_CHECKING:
    from twinrun.comparison.result import Result

ELSEWHERE = "model.layers.1.self_attn:output.0"

_READ = f"""\
How to read it
  Comparing shows where two runs part; giving one of them the other's tensor shows why. With the
  baseline's value at {PLANTED} the ranks come
  right from there on: whatever is wrong lies at that point or before it, and nothing after it is.
  With the baseline's value one layer earlier nothing changes: the fault is not there.
  Both programs ran unchanged. In the second graft the capture of the first stood in for the baseline."""


def heal(program: str, model: str, out: Path) -> int:
    """Graft the faulty point, then another; 0 where the first heals and the second does not."""
    whole = f"python {program} run {model}"
    spread = f"torchrun --nproc-per-node 2 {program} run {model} --drop-all-reduce {PLACE}"
    step("make a small random Llama", ["python", program, "make", model])
    healed, ill = out / "healed", out / "not-healed"
    step(
        "run it as one process and on 2 ranks with the fault; they take the one tensor that is wrong",
        ["twinrun", "graft", "--baseline", whole, "--target", spread, *_graft(PLANTED, healed)],
    )
    baseline = str(healed / "baseline")
    first = compared(baseline, str(healed / "target"), top=1)
    print()
    step(
        "the same with another layer's tensor, from the capture of the first run",
        ["twinrun", "graft", baseline, "--target", spread, *_graft(ELSEWHERE, ill)],
    )
    second = compared(baseline, str(ill / "target"), top=1)
    return judged(first, second)


def _graft(name: str, out: Path) -> list[str]:
    return ["--b2t", f"name == '{name}'", "--taps", "modules", "--out", str(out), "--overwrite"]


def judged(healed: Result, ill: Result) -> int:
    """The demo's last words: 0 where one graft heals and the other leaves the fault where it is."""
    wrong = ""
    if healed.verdict != "agree":
        wrong = f"with {PLANTED} grafted the runs gave {healed.verdict!r}"
    elif ill.first is None or ill.first.row.name != PLANTED:
        wrong = f"with {ELSEWHERE} grafted the fault is no longer found at {PLANTED}"
    print(f"\n{_READ}\n")
    if wrong:
        print(f"demo: NOT as expected: {wrong}")
        return 1
    print("demo: healed by the faulty point's own tensor, and not by another one")
    return 0
