"""Weights and buffers that are not the baseline's: a fault of their own, not of the module's code."""

from __future__ import annotations

from twinrun.comparison.result import Result
from twinrun.diagnosis.finding import Suspect
from twinrun.diagnosis.tree import Tree

_HELD = {"parameter": "parameter", "buffer": "buffer"}


def held_suspects(result: Result, tree: Tree) -> list[Suspect]:
    """One suspect for each parameter or buffer that differs, in the order of the model."""
    found = []
    for row in result.rows:
        if row.kind not in _HELD or row.verdict != "differs" or row.target is None:
            continue
        path = row.name.rpartition(":")[0].rpartition(".")[0]
        module = tree.get(path)
        kind = module.module_class if module is not None else ""
        fault = "buffer" if row.kind == "buffer" else "parameter"
        found.append(Suspect(path, kind, row.name, fault, row=row, hint=row.hint))  # type: ignore[arg-type]
    return found
