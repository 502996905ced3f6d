"""What the programs themselves fed in: where that differs, no module can be blamed."""

from __future__ import annotations

from twinrun.comparison.result import Result, Row
from twinrun.diagnosis.tree import Tree

_LATER = ("parameter", "buffer")


def unequal_inputs(result: Result, tree: Tree) -> tuple[Row, ...]:
    """Inputs of the outermost modules that differ before anything else does.

    Inputs of later steps may follow from what earlier ones gave (generated tokens): they count only
    as long as everything before them agrees. An input that one run was not given at all is left to
    the modules that use it.
    """
    starts = tuple(f"{root.path}:input." for root in tree.roots())
    found = []
    for row in result.rows:
        if row.kind in _LATER:
            continue
        outer = row.kind == "activation" and row.name.startswith(starts)
        if outer and row.verdict in ("differs", "undecided"):
            found.append(row)
        elif not row.agrees and row.verdict != "unmatched" and not outer:
            break
    return tuple(found)
