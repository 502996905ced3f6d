"""Tiny random models of transformers: one process against 2 and 4 tensor-parallel ranks.

python -m benchmarks.real_models [--families llama gemma] [--ranks 2 4] [--work DIR] [--full]

Each case is captured with `twinrun run`, unchanged and without an annotation, and compared. Prints
a row a case and writes the rows, with machine and versions, to benchmarks/results/real_models.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from benchmarks.real_models.program import FAMILIES

import twinrun

PROGRAM = Path(__file__).with_name("program.py")
RESULTS = Path(__file__).parents[1] / "results" / "real_models.json"
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class Case:
    """One comparison: what runs, and on how many ranks."""

    family: str
    ranks: int
    job: str = "forward"
    dtype: str = "float32"
    layers: int = 2

    @property
    def options(self) -> list[str]:
        job = [] if self.job == "forward" else [f"--{self.job}"]
        return ["--dtype", self.dtype, *job]

    @property
    def observing(self) -> list[str]:
        return ["--gradients", "--parameters"] if self.job == "backward" else []


def cases(families: list[str], ranks: list[int], full: bool) -> list[Case]:
    """Forward, backward and decoding in float32; with ``full`` also 32 layers in bfloat16."""
    jobs = ["forward", "backward", "generate"]
    found = [Case(f, n, job) for f in families for n in ranks for job in jobs]
    deep = [Case(f, 2, "forward", "bfloat16", 32) for f in families]
    return found + deep if full else found


def capture(case: Case, ranks: int, model: Path, out: Path) -> None:
    """Run one side under `twinrun run`, in a process of its own; keep it if it is there already."""
    if (out / "run.json").exists():
        return
    launcher = (
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
        if ranks > 1
        else [sys.executable]
    )
    command = [
        *[str(Path(sys.executable).with_name("twinrun")), "run", "--out", str(out), "--overwrite"],
        *[*case.observing, "--", *launcher, str(PROGRAM), "run", str(model), *case.options],
    ]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nexit {done.returncode}\n{done.stdout}{done.stderr}")


def measure(case: Case, work: Path) -> dict[str, object]:
    """Capture both sides, compare them, and say what was found in one row."""
    model = work / f"{case.family}-{case.layers}"
    if not model.exists():
        make = ["make", str(model), "--family", case.family, "--layers", str(case.layers)]
        subprocess.run([sys.executable, str(PROGRAM), *make], env=ENVIRONMENT, check=True)
    stem = f"{case.family}-{case.layers}-{case.job}-{case.dtype}"
    sides = [work / "runs" / f"{stem}-{n}" for n in (1, case.ranks)]
    for ranks, side in zip((1, case.ranks), sides, strict=True):
        capture(case, ranks, model, side)
    begun = time.perf_counter()
    result = twinrun.compare(str(sides[0]), str(sides[1]))
    return {
        **asdict(case),
        "exit_code": result.exit_code,
        "counts": {k: v for k, v in result.counts.items() if v},
        "first": result.first.row.point if result.first else "",
        "hint": result.first.row.hint.text if result.first and result.first.row.hint else "",
        "invariants": [f"{i.side} {i.name}: {i.text}" for i in result.invariants],
        "largest_ratio": max((r.ratio or 0.0 for r in result.rows if r.agrees), default=0.0),
        "compare_s": round(time.perf_counter() - begun, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="*", default=sorted(FAMILIES))
    parser.add_argument("--ranks", nargs="*", type=int, default=[2, 4])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--full", action="store_true", help="also 32 layers in bfloat16")
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="twinrun-real-models-"))
    rows = []
    for case in cases(given.families, given.ranks, given.full):
        row = measure(case, work)
        rows.append(row)
        told = f"exit {row['exit_code']}  {row['counts']}  {row['first']}  {row['hint']}"
        print(f"{case.family:10} tp={case.ranks} {case.job:9} {case.dtype:9} {told}", flush=True)
        for line in row["invariants"][:3]:
            print(f"           invariant: {line}")
    about = {
        "command": "python -m benchmarks.real_models " + " ".join(sys.argv[1:]),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "twinrun": twinrun.__version__,
        },
    }
    RESULTS.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
