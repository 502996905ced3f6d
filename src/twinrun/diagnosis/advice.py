"""The outcome in one word, and the commands to see more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from twinrun.comparison.result import Result
from twinrun.diagnosis.finding import Outcome, Part, Suspect
from twinrun.diagnosis.passes import Passes


def outcome_of(result: Result, suspects: Sequence[Suspect], parts: Sequence[Part]) -> Outcome:
    """Blamed where anything was; else clean only where every doubt was settled.

    Runs that differ although every module is clean are undecided: what adds up, or a choice that
    rounding tipped, cannot be told from a fault below every module's own rounding.
    """
    if suspects:
        return "blamed"
    if result.verdict == "agree":
        return "clean" if all(one.state == "clean" for one in parts) else "undecided"
    settled = bool(parts) and all(one.state == "clean" for one in parts)
    return "clean" if settled and result.verdict == "undecided" else "undecided"


def advice(passes: Passes, result: Result, suspects: Sequence[Suspect]) -> tuple[str, ...]:
    """Commands that can be pasted; they need the captures, which only ``--work`` keeps."""
    baseline, target = shlex.quote(result.baseline.path), shlex.quote(result.target.path)
    if not passes.kept:
        return ("keep the captures to look further: --work runs/blame",)
    told = [f"twinrun show {target} {shlex.quote(one.name)}" for one in suspects[:2]]
    told.append(f"twinrun compare {baseline} {target}")
    healing = [one for one in suspects if one.fault in ("module", "own code") and one.module]
    if healing:
        chosen = shlex.quote(f'name ~ "{healing[0].module}:output*"')
        command = shlex.quote(passes.target.text)
        told.append(f"twinrun graft {baseline} --b2t {chosen} --target {command}")
    return tuple(told)
