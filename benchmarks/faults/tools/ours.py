"""Twinrun's own columns: `twinrun blame`, and `twinrun compare` alone with its first divergence."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.cases import Case
from benchmarks.faults.commands import PREPARING, run, surroundings
from benchmarks.faults.score import Answer, Named
from benchmarks.faults.tools.names import accused

TWINRUN = str(Path(sys.executable).with_name("twinrun"))
OUTCOMES = {
    "clean": "clean",
    "blamed": "blamed",
    "undecided": "undecided",
    "inputs differ": "blamed",
    "nothing": "failed",
}


def compare(case: Case, work: Path) -> Answer:
    """The first divergence between two captures of every module, parameters included."""
    target = work / "captures" / case.key
    sides = [baseline(case, work), target]
    try:
        capture(case, target, run(case, work, planted=True, tp=case.tp))
        done, lines = told([TWINRUN, "compare", *map(str, sides), "--json"])
    finally:
        shutil.rmtree(target, ignore_errors=True)
    ends = [line for line in lines if line["type"] == "summary"]
    if not ends:
        return failure(done)
    points = {line["position"]: line for line in lines if line["type"] == "point"}
    first = points.get(ends[0]["first"])
    verdict = {"differ": "blamed", "agree": "clean"}.get(ends[0]["verdict"], ends[0]["verdict"])
    if first is None:
        return Answer((), verdict if verdict in ("clean", "undecided") else "undecided")
    hint = (first["hint"] or {}).get("kind", "")
    return Answer((accused(first["name"], hint),), "blamed", text=first["name"])


def blame(case: Case, work: Path) -> Answer:
    """`twinrun blame --baseline CMD --target CMD`; in narrow types with a shadow of all that moved."""
    sides = [
        run(case, work, planted=planted, tp=tp) for planted, tp in ((False, 1), (True, case.tp))
    ]
    shadows = [] if case.dtype == "float32" else ["--shadows", "all"]
    given = ["--baseline", shlex.join(sides[0]), "--target", shlex.join(sides[1]), *shadows]
    return blamed(case, work / "said", given)


def blame_capture(case: Case, work: Path) -> Answer:
    """`twinrun blame CAPTURE -- CMD`: the right run is recorded once for all faults of its model."""
    given = [str(baseline(case, work)), "--", *run(case, work, planted=True, tp=case.tp)]
    return blamed(case, work / "said-capture", given)


def blamed(case: Case, keeping: Path, given: Sequence[str]) -> Answer:
    """Run blame and read its last words; all it said is kept in a file under ``keeping``."""
    gradients = ["--gradients"] if case.mode == "backward" else []
    done, lines = told([TWINRUN, "blame", "--json", *gradients, *given])
    said = keeping / f"{case.key}.txt"
    said.parent.mkdir(parents=True, exist_ok=True)
    said.write_text(f"{shlex.join(done.args)}\n{done.stdout}\n{done.stderr}")
    ends = [line for line in lines if line["type"] == "verdict"]
    if not ends:
        return failure(done)
    named = tuple(_suspect(line) for line in lines if line["type"] == "suspect")
    proof = ends[0]["proof"]["state"]
    told_text = "; ".join(line["why"] for line in lines if line["type"] == "suspect")
    notes = "; ".join([told_text, *ends[0]["notes"]]).strip("; ")
    outcome = OUTCOMES[ends[0]["outcome"]]
    return Answer(named, outcome, "" if proof == "not run" else proof, notes)


def _suspect(line: dict[str, Any]) -> Named:
    hint = (line["hint"] or {}).get("kind", "")
    operator = line["operator"] or {}
    if line["fault"] in ("parameter", "buffer") or ":parameter" in line["name"]:
        return Named(line["name"].partition(":")[0], parameter=True, hint=hint)
    if line["fault"] == "rounding":
        return Named(line["module"], hint="rounding", rounding=True)
    scaled = operator.get("kind") == "argument" and operator["name"] in ("mul", "div")
    hint = hint or ("factor" if scaled else "")
    return Named(line["module"], operator=operator.get("name", ""), hint=hint)


def baseline(case: Case, work: Path) -> Path:
    """The right run of a case's model on one process, recorded once."""
    place = work / "captures" / f"{case.model}-{case.mode}-{case.dtype}-right"
    with PREPARING:
        if not (place / "run.json").exists():
            capture(case, place, run(case, work, planted=False, tp=1))
    return place


def capture(case: Case, place: Path, command: Sequence[str]) -> None:
    """Record every module and parameter of one run."""
    gradients = ["--gradients"] if case.mode == "backward" else []
    shutil.rmtree(place, ignore_errors=True)
    taken = [TWINRUN, "run", "--out", str(place), "--taps", "modules", "--parameters", *gradients]
    done = subprocess.run(
        [*taken, "--", *command], capture_output=True, text=True, check=False, **surroundings()
    )
    if done.returncode:
        shutil.rmtree(place, ignore_errors=True)
        raise RuntimeError(f"{shlex.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")


def told(command: Sequence[str]) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """Run one of our commands and read its lines of JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **surroundings())
    return done, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def failure(done: subprocess.CompletedProcess[str]) -> Answer:
    """What went wrong, for the result file."""
    return Answer((), "failed", text=f"exit {done.returncode}: {done.stderr[-3000:]}")
