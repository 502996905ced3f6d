"""The commands that a case stands for, the environment they run in, and what machine that is."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.faults import warm as warm_start
from benchmarks.faults.cases import Case

ROOT = Path(__file__).parents[2]
PROGRAM = "benchmarks.faults.program"
TIMEOUT_S = 900
PREPARING = threading.Lock()
"""Held while something is made that several cases share: a model, a right run."""


def surroundings() -> dict[str, Any]:
    """Arguments for `subprocess.run`: one thread a process, nothing fetched, no warnings."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src"))),
    }
    return {"env": environment, "cwd": ROOT, "timeout": TIMEOUT_S}


def launcher(tp: int, python: str = sys.executable) -> list[str]:
    """Python as one process, or as ``tp`` ranks under torchrun on a free port."""
    if tp == 1:
        return [python, *warmly(python)]
    spread = ["torch.distributed.run", "--nproc-per-node", str(tp)]
    once = [python, *warmly(python), *spread, "--master-port", "0", "--standalone"]
    return [*once, *warmly(python)]


def warmly(python: str) -> list[str]:
    """What stands before the name of a module: `-m`, or the process that has everything imported."""
    warm = python == sys.executable and warm_start.NAME in os.environ
    return ["-m", "benchmarks.faults.warm"] if warm else ["-m"]


def run(case: Case, work: Path, *, planted: bool, tp: int, program: str = PROGRAM) -> list[str]:
    """One side of a case: the right run, or the target with what is planted in it."""
    given = [program, "run", str(work / "models" / case.model), *case.options]
    return [*launcher(tp), *given, *(case.planted if planted else [])]


def make_model(case: Case, work: Path) -> None:
    """Write the case's random model unless it is there."""
    directory = work / "models" / case.model
    given = ["--family", case.family, "--seed", str(case.seed), *(["--bias"] if case.bias else [])]
    command = [sys.executable, "-m", PROGRAM, "make", str(directory), *given]
    with PREPARING:
        if not (directory / "model.safetensors").exists():
            subprocess.run(command, check=True, **surroundings())


def about() -> dict[str, Any]:
    """The command, the machine and the versions that a result file names."""
    called = Path(sys.argv[0])
    name = "faults" if called.stem == "__main__" else f"faults.{called.stem}"
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--work")
    own.add_argument("--results")
    given = own.parse_known_args(sys.argv[1:])[1]  # where files lie says nothing about the result
    packages = ("torch", "transformers", "twinrun")
    return {
        "command": f"python -m benchmarks.{name} " + " ".join(given),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
    }
