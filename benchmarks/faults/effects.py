"""How much each planted fault moves what the program gives back: a fault without effect is no case.

python -m benchmarks.faults.effects [--faults GLOB] [--work DIR]

Relative L2 of the logits, and of all gradients together where there is a backward pass, of the faulty run
against the right one on as many ranks: the fewest that the fault needs. Writes
benchmarks/results/faults_effects.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import torch
from benchmarks.faults import program
from benchmarks.faults.cases import Case, faulty, right, select
from benchmarks.faults.commands import ROOT, about, make_model, run, surroundings

RESULTS = ROOT / "benchmarks" / "results" / "faults_effects.json"


def outputs(case: Case, work: Path, *, planted: bool) -> dict[str, torch.Tensor]:
    """Logits and gradients of one run; kept, so that the right run of a model runs once."""
    name = case.key if planted else f"{case.model}-tp{case.tp}-{case.mode}-{case.dtype}"
    path = work / f"{name}.pt"
    if not path.exists():
        command = [*run(case, work, planted=planted, tp=case.tp), "--save", str(path)]
        if case.tp == 1:  # in this process: importing takes longer than running
            program.run(program.parse(command[command.index("run") :]))
        else:
            subprocess.run(command, check=True, **surroundings())
    held = torch.load(path, weights_only=True)
    grads = [held["grads"][name].flatten() for name in sorted(held["grads"])]
    return {"logits": held["logits"], "gradients": torch.cat(grads) if grads else torch.zeros(0)}


def distance(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """Relative L2, or None where there is nothing to compare."""
    if not a.numel():
        return None
    a, b = a.double(), b.double()
    return float((a - b).norm() / max(a.norm(), b.norm()))


def measure(case: Case, work: Path) -> dict[str, object]:
    """One row."""
    make_model(case, work)
    good, bad = (outputs(case, work, planted=planted) for planted in (False, True))
    return {
        "name": case.name,
        "family": case.family,
        "tp": case.tp,
        "mode": case.mode,
        "dtype": case.dtype,
        "logits": distance(good["logits"], bad["logits"]),
        "gradients": distance(good["gradients"], bad["gradients"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", default="*")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="faults-effects-"))
    rows = []
    cases = select([*faulty(), *right(0)], names=given.faults)
    fewest: dict[str, int] = {}
    for case in cases:
        fewest[case.name] = min(case.tp, fewest.get(case.name, case.tp))
    for case in cases:
        if case.tp > fewest[case.name]:
            continue
        rows.append(row := measure(case, work))
        figures = "  ".join(
            f"{k} {row[k]:.1e}" for k in ("logits", "gradients") if row[k] is not None
        )
        print(f"{case.name:45} {case.family:10} tp={case.tp} {case.dtype:9} {figures}", flush=True)
    RESULTS.write_text(json.dumps({**about(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
