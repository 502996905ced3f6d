"""msprobe (`mindstudio-probe` on PyPI, Ascend's precision tool; it runs on CPU), as its documentation says.

Dumps at level mix (modules and API calls) with task tensor, the setting for analysis in depth, compared by
`msprobe compare`. Its answer is what its own result table marks: rows with the result `error`, in
order, or those with `warning` where there is no error. A row of an API call accuses the module that its
own `construct.json` puts it under. It pairs ranks one to one and knows no layouts, so for targets on
several ranks the right run is spread over as many. It has no verdict on a run as a whole and no proof.

Install it apart from everything else, and name that Python in FAULTS_MSPROBE_PYTHON:

    python -m venv msprobe && msprobe/bin/pip install mindstudio-probe torch transformers
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.faults.cases import Case
from benchmarks.faults.commands import PREPARING, launcher, run, surroundings
from benchmarks.faults.score import Answer, Named

PYTHON = os.environ.get("FAULTS_MSPROBE_PYTHON", "")
PROGRAM = "benchmarks.faults.tools.msprobe_program"


def msprobe(case: Case, work: Path) -> Answer:
    """Dump both runs, compare the dumps, and read the table."""
    if not PYTHON:
        return Answer((), "unable", text="FAULTS_MSPROBE_PYTHON names no Python that has msprobe")
    right = work / "msprobe" / f"{case.model}-{case.mode}-{case.dtype}-tp{case.tp}-right"
    target = work / "msprobe" / case.key
    try:
        with PREPARING:
            if not right.exists():
                dump(case, work, right, planted=False)
        dump(case, work, target, planted=True)
        tables = compared(target, right)
        named = tuple(flagged(tables, target))
    except RuntimeError as error:
        return Answer((), "failed", text=str(error))
    finally:
        shutil.rmtree(target, ignore_errors=True)
    return Answer(named, "blamed" if named else "clean")


def dump(case: Case, work: Path, place: Path, *, planted: bool) -> None:
    """One run under the debugger, its dump in ``place``."""
    part = place.with_name(place.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    settings = {"task": "tensor", "dump_path": str(part), "rank": [], "step": [], "level": "mix"}
    settings["tensor"] = {"scope": [], "list": [], "data_mode": ["all"]}
    config = part / "config.json"
    config.write_text(json.dumps(settings))
    command = run(case, work, planted=planted, tp=case.tp, program=PROGRAM)
    command = [*launcher(case.tp, PYTHON), *command[len(launcher(case.tp)) :]]
    _checked([*command, "--msprobe-config", str(config)])
    part.rename(place)


def compared(target: Path, right: Path) -> list[list[dict[str, str]]]:
    """The result tables, one for each rank, the lowest first."""
    out = target / "result"
    out.mkdir()
    sides = ["-tp", str(target / "step0"), "-gp", str(right / "step0")]
    _checked([str(Path(PYTHON).with_name("msprobe")), "compare", *sides, "-o", str(out)])
    tables = []
    for path in sorted(out.glob("compare_result_*.csv")):
        with path.open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    if not tables:
        raise RuntimeError("msprobe compare wrote no table")
    return tables


def flagged(tables: Sequence[Sequence[dict[str, str]]], target: Path) -> Iterator[Named]:
    """What the tables mark, each once, in the order of the rows, the lowest rank first."""
    owners: dict[str, str | None] = {}
    for path in sorted((target / "step0").glob("*/construct.json")):
        owners |= json.loads(path.read_text())
    for result in ("error", "warning"):
        seen: set[Named] = set()
        rows = [(at, row) for table in tables for at, row in enumerate(table)]
        for _, row in sorted(rows, key=lambda held: held[0]):
            if row["Result"] != result:
                continue
            named = accused(row["NPU Name"], owners)
            if named not in seen:
                seen.add(named)
                yield named
        if seen:
            return


def accused(name: str, owners: dict[str, str | None]) -> Named:
    """The module, parameter or API call that a row is about."""
    parts = name.split(".")
    if parts[0] == "Module":
        at = next(i for i, p in enumerate(parts) if p in ("forward", "backward", "parameters_grad"))
        path = ".".join(parts[1 : at - 1])
        parameter = "parameters" in parts[at:] or parts[at] == "parameters_grad"
        return Named(f"{path}.{parts[-1]}", parameter=True) if parameter else Named(path)
    owner = owners.get(".".join(parts[:4])) or ""
    path = accused(owner, owners).path if owner else ""
    return Named(path, operator=parts[1])


def _checked(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **surroundings())
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {(done.stderr or done.stdout)[-3000:]}")
