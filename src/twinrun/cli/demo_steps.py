"""The steps of a demo: its program written where it can be read, its commands run as one would type them."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from twinrun.errors import TwinrunError, UsageError

if TYPE_CHECKING:
    from twinrun.comparison.result import Result

PLACE = "2.down_proj"
PLANTED = "model.layers.2.mlp.down_proj:output"
MARK = '"""A program that knows nothing of Twinrun'
_PROGRAM = Path(__file__).with_name("demo_program.py")
_LONGEST_S = 300


def prepared(out: Path) -> str:
    """The program, written to ``out`` where it can be read, changed and run again."""
    program = out / "program.py"
    ours = program.is_file() and program.read_text(encoding="utf-8").startswith(MARK)
    if out.exists() and not ours and any(out.iterdir()):
        raise UsageError(f"{out} holds files that are not the demo's.", do="choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    program.write_text(_PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    return str(program)


def step(title: str, words: Sequence[str]) -> None:
    """Run one command as a user would, shown as one would type it; its output only when it fails."""
    print(f"{title}\n  $ {' '.join(map(_typed, words))}", flush=True)
    begun = time.monotonic()
    done = subprocess.run(
        _runnable(words), capture_output=True, text=True, timeout=_LONGEST_S, check=False
    )
    if done.returncode:
        raise TwinrunError(
            f"The demo's own command ended with {done.returncode}.",
            seen="\n".join([" ".join(map(_typed, words)), done.stdout, done.stderr]).strip(),
            do="run the command by itself to see more",
        )
    for line in [*done.stdout.splitlines(), *_ours(done.stderr)]:
        print(f"    {line}")
    print(f"    {time.monotonic() - begun:.0f} s\n", flush=True)


def _typed(word: str) -> str:
    return f'"{word}"' if " " in word else word


def _runnable(words: Sequence[str]) -> list[str]:
    """The same command with this interpreter's own python, torchrun and twinrun; quoted ones too."""
    here = {
        "python": [sys.executable],
        "torchrun": [sys.executable, "-m", "torch.distributed.run"],
        "twinrun": [sys.executable, "-m", "twinrun"],
    }
    inner = [
        shlex.join(_runnable(shlex.split(word)))
        if word.split(" ")[0] in here and " " in word
        else word
        for word in words
    ]
    return [part for word in inner for part in here.get(word, [word])]


def _ours(stderr: str) -> list[str]:
    """What twinrun said, without the list of processes; each graft that was received."""
    said = [line for line in stderr.splitlines() if line.startswith(("twinrun: ", "received "))]
    return [line for line in said if not line.startswith("twinrun:   ") and line[-1] != ":"]


def compared(baseline: str, target: str, top: int = 3) -> Result:
    """Compare two captures of the demo and show what came of it."""
    from twinrun.cli.advice import possible
    from twinrun.comparison.compare import compare
    from twinrun.report import terminal
    from twinrun.report.comparison import comparison_page

    print(f"compare\n  $ twinrun compare {baseline} {target}\n", flush=True)
    result = possible(compare(baseline, target))
    terminal.show(comparison_page(result, top=top), terminal.console(sys.stdout))
    return result
