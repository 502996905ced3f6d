"""What `twinrun launch` adds to torchrun's own start: the time until its process becomes torchrun.

Measured up to the `execve` itself, in a process as the console script starts it, beside a Python that
does nothing; and, as a check of the whole, both ways of starting a program that does nothing, in turns.

    python benchmarks/launch.py [--rounds 15] [--whole 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

GIVEN = ["launch", "--nproc-per-node", "1", "--", "true"]
UNTIL = """
import os, sys, time
os.execve = lambda *given: (print(time.time()), sys.stdout.flush(), os._exit(0))
from twinrun.cli.main import main
main()
"""
NOTHING = "import time; print(time.time())"


def until_said(command: list[str]) -> float:
    """Milliseconds until the process says what time it is."""
    begun = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (float(done.stdout.split()[-1]) - begun) * 1e3


def until_ended(command: list[str]) -> float:
    """Milliseconds until the process has ended."""
    begun = time.time()
    subprocess.run(command, capture_output=True, check=True)
    return (time.time() - begun) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--whole", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    added = [sys.executable, "-c", UNTIL, *GIVEN]
    plain = [sys.executable, "-c", NOTHING]
    pairs = [(until_said(added), until_said(plain)) for _ in range(given.rounds + 2)][2:]
    ours = [str(shutil.which("twinrun")), *GIVEN]
    theirs = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    theirs += ["--nproc-per-node=1", "--no-python", "true"]
    wholes = [(until_ended(ours), until_ended(theirs)) for _ in range(given.whole)]
    found = {
        "until it is torchrun, ms": _both([one for one, _ in pairs]),
        "a Python that does nothing, ms": _both([two for _, two in pairs]),
        "twinrun launch, whole, ms": _both([one for one, _ in wholes]),
        "torchrun, whole, ms": _both([two for _, two in wholes]),
    }
    for name, times in found.items():
        print(f"{name:34} median {times['median']:8.1f}   best {times['best']:8.1f}")
    if given.json:
        about = {
            "command": "python benchmarks/launch.py",
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "versions": {"python": platform.python_version(), "torch": version("torch")},
        }
        given.json.write_text(json.dumps({**about, **found}, indent=1) + "\n")


def _both(times: list[float]) -> dict[str, float]:
    if not times:
        return {"median": float("nan"), "best": float("nan")}
    return {"median": round(statistics.median(times), 1), "best": round(min(times), 1)}


if __name__ == "__main__":
    main()
