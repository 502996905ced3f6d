"""The suite of planted faults: every fault on every family, every tool's answer, one score table.

python -m benchmarks.faults [--faults GLOB] [--families llama] [--tp 1 2] [--dtypes float32]
    [--tools ours compare msprobe] [--kinds faults right] [--seeds N] [--work DIR]
    [--jobs 1] [--spread] [--cold] [--answered]

Each case of each tool leaves a file under DIR/answers; what is there is not run
again. Prints one table and writes it, with machine and versions, to benchmarks/results/faults.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.faults.cases import Case, faulty, right, select
from benchmarks.faults.commands import ROOT, about, make_model
from benchmarks.faults.faults import FAMILIES
from benchmarks.faults.score import Answer, Named, grade
from benchmarks.faults.table import cell, table, totals
from benchmarks.faults.tools import msprobe, ours
from benchmarks.faults.warm import serving

RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
TOOLS: dict[str, Callable[[Case, Path], Answer]] = {
    "ours": ours.blame,
    "ours-capture": ours.blame_capture,
    "compare": ours.compare,
    "msprobe": msprobe.msprobe,
}


def ask(tool: str, case: Case, work: Path) -> Answer:
    """A tool's answer on a case, from its file if it has one."""
    path = kept(tool, case, work)
    if path.exists():
        held = json.loads(path.read_text())
        return Answer(**{**held, "named": tuple(Named(**each) for each in held["named"])})
    make_model(case, work)
    begun = time.perf_counter()
    try:
        answer = TOOLS[tool](case, work)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        answer = Answer((), "failed", text=str(error)[-3000:])
    answer = replace(answer, seconds=round(time.perf_counter() - begun, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(answer), indent=1) + "\n")
    return answer


def kept(tool: str, case: Case, work: Path) -> Path:
    """Where a tool's answer on a case is kept."""
    return work / "answers" / tool / f"{case.key}.json"


def row(case: Case, tools: Sequence[str], work: Path, answered: bool) -> dict[str, Any]:
    """What each tool says of a case and what that is worth; told as it comes."""
    held: dict[str, Any] = {"case": case, "answers": {}, "grades": {}}
    for tool in tools:
        if answered and not kept(tool, case, work).exists():
            continue
        answer = ask(tool, case, work)
        held["answers"][tool], held["grades"][tool] = answer, grade(answer, case.expected)
        where = f"{case.name:45} {case.family:10} tp={case.tp} {case.dtype:8}"
        named = [each.path for each in answer.named[:3]]
        print(f"{tool:12} {where} {cell(held['grades'][tool]):32} {named}", flush=True)
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", default="*", help="globs, joined by commas; none: no fault")
    parser.add_argument("--families", nargs="*", default=FAMILIES)
    parser.add_argument("--tp", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--tools", nargs="*", choices=sorted(TOOLS), default=["ours", "compare"])
    parser.add_argument("--kinds", nargs="*", choices=["faults", "right"], default=["faults"])
    parser.add_argument("--seeds", type=int, default=1, help="models without a fault, of each kind")
    parser.add_argument("--spread", action="store_true", help="each seed is one kind only, in turn")
    parser.add_argument("--cold", action="store_true", help="every program imports torch itself")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--answered", action="store_true", help="run nothing: tell what is there")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="twinrun-faults-"))
    every = [*(faulty() if "faults" in given.kinds else [])]
    every += [*(right(given.seeds, spread=given.spread) if "right" in given.kinds else [])]
    chosen = select(
        every, names=given.faults, families=given.families, tp=given.tp, dtypes=given.dtypes
    )
    warm = nullcontext() if given.cold or given.answered else serving()
    with warm, ThreadPoolExecutor(given.jobs) as pool:
        found = list(pool.map(lambda case: row(case, given.tools, work, given.answered), chosen))
    rows = [held for held in found if held["answers"]]
    print(table(rows, given.tools), totals(rows, given.tools), sep="\n")
    written = [{key: _plain(value, work) for key, value in row.items()} for row in rows]
    given.results.write_text(json.dumps({**about(), "rows": written}, indent=1) + "\n")


def _plain(value: Case | dict[str, object], work: Path) -> object:
    """As JSON holds it, without this machine's paths."""
    if not isinstance(value, dict):
        return asdict(value)
    plain = {key: asdict(each) for key, each in value.items()}
    for each in plain.values():
        if text := each.get("text"):
            each["text"] = text.replace(str(work), "DIR").replace(f"{sys.prefix}/bin/", "")[-400:]
    return plain


if __name__ == "__main__":
    main()
