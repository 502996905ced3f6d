"""Start a program under `twinrun run` and read what it left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from twinrun.recorder.reader import Capture, open_capture

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
_TIMEOUT_S = 240


@dataclass(frozen=True)
class Ended:
    """How a command ended: its code, and what it wrote."""

    code: int
    out: str
    err: str


def program(directory: Path, text: str, name: str = "program.py") -> str:
    """Write a program to ``directory``; its path."""
    path = directory / name
    path.write_text(dedent(text))
    return str(path)


def run(
    out: Path,
    command: Sequence[str],
    *options: str,
    environ: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
) -> Ended:
    """``twinrun run --out OUT OPTIONS -- COMMAND``; ``environ`` changes variables, None removes one."""
    words = [sys.executable, "-m", "twinrun", "run", "--out", str(out), *options, "--", *command]
    return plain(words, environ=environ, cwd=cwd)


def plain(
    words: Sequence[str],
    environ: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
) -> Ended:
    """Any command, to its end."""
    changed = {**os.environ, "OMP_NUM_THREADS": "1", **(environ or {})}
    ended = subprocess.run(
        list(words),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        cwd=cwd,
        env={name: value for name, value in changed.items() if value is not None},
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def read(out: Path) -> Capture:
    """The capture that a run left."""
    return open_capture(str(out))


def names(out: Path, rank: int = 0) -> list[str]:
    """The names that a rank recorded, in order."""
    return [r.name for r in read(out).records if r.rank == rank]
