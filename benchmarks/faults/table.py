"""The score table as text. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.faults.score import MARKS, Grade


def cell(grade: Grade) -> str:
    """One grade as a few words: the mark, what of the hint and the proof there is, what came along."""
    words: list[str] = [grade.mark]
    words += [f"hint {grade.hint}"] if grade.hint in ("right", "wrong") else []
    words += [grade.proof] if grade.proof else []
    words += [f"+{grade.extra}"] if grade.extra and grade.mark != "false alarm" else []
    return ", ".join(words)


def table(rows: Iterable[dict[str, Any]], tools: Sequence[str]) -> str:
    """A Markdown table: a row a case, a column a tool; empty where a tool was not asked."""
    head = ["fault", "family", "tp", "dtype", *tools]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        case = row["case"]
        given = [case.name, case.family, f"1:{case.tp}", case.dtype]
        grades = row["grades"]
        lines.append([*given, *(cell(grades[t]) if t in grades else "" for t in tools)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def totals(rows: Sequence[dict[str, Any]], tools: Sequence[str]) -> str:
    """How often each tool earned each mark, how many hints were right and how many proofs healed."""
    told = []
    for tool in tools:
        grades = [row["grades"][tool] for row in rows if tool in row["grades"]]
        marks = Counter(grade.mark for grade in grades)
        parts = [f"{marks[mark]} {mark}" for mark in MARKS if marks[mark]]
        expected = [grade.hint for grade in grades if grade.hint]
        parts += [f"hints {expected.count('right')} of {len(expected)}"] if expected else []
        parts += [f"operators {_share(grade.operator for grade in grades)}"]
        proofs = [grade.proof for grade in grades if grade.proof]
        parts += [f"healed {proofs.count('healed')} of {len(proofs)}"] if proofs else []
        told.append(f"{tool}: {len(grades)} cases: " + ", ".join(parts))
    return "\n".join(told)


def _share(words: Iterable[str]) -> str:
    held = [word for word in words if word]
    return f"{held.count('right')} of {len(held)}"
