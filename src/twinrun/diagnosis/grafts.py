"""What a pass grafts, as a filter text, and the layouts that the comparison has found out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from twinrun.comparison.result import Operand, Result

_KNOWN = ("dtensor", "inferred", "replicated")
_POSITIONAL = re.compile(r"d\d+")


def boundaries(modules: Iterable[str], *roles: str) -> str:
    """A filter that takes the activations of these roles of these modules; empty for no module."""
    listed = _listed(modules)
    if not listed:
        return ""
    chosen = ", ".join(f'"{role}"' for role in roles)
    return f'(kind == "activation" and role in ({chosen}) and module in ({listed}))'


def points(names: Iterable[str]) -> str:
    """A filter that takes points by name; empty for none."""
    listed = _listed(names)
    return f"(name in ({listed}))" if listed else ""


def either(*filters: str) -> str:
    """A filter that takes what any of the filters takes."""
    return " or ".join(one for one in filters if one)


def write_layouts(result: Result, path: Path) -> str:
    """The layouts that comparing has inferred, as a file for ``--graft-layouts``; its path or nothing.

    Only dims that are numbered by place (nothing stated them) are written: what is stated travels
    with the records. A point that one run holds whole has the other's dims without axes.
    """
    told: dict[str, dict[str, str]] = {"baseline": {}, "target": {}}
    for row in result.rows:
        if row.baseline is None or row.target is None or row.reason == "partial sum":
            continue
        sides = {"baseline": row.baseline, "target": row.target}
        if not all(_usable(one) for one in sides.values()):
            continue
        if not any("[" in one.dims for one in sides.values()):
            continue
        for role, one in sides.items():
            # The target's points go by the baseline's names (``aliases_of``).
            told[role][row.baseline.name] = one.dims or _whole(one)
    if not told["target"]:
        return ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return str(path)


def aliases_of(result: Result) -> dict[str, str]:
    """The target's own name of each point that comparing paired under another: name -> the baseline's."""
    return {
        row.target.name: row.baseline.name
        for row in result.rows
        if row.baseline is not None
        and row.target is not None
        and row.kind == "activation"
        and row.baseline.name != row.target.name
    }


def write_aliases(aliases: Mapping[str, str], path: Path) -> str:
    """The names as a file for ``Options.aliases``; its path, or nothing where all names are alike."""
    if not aliases:
        return ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(aliases), indent=1), encoding="utf-8")
    return str(path.absolute())


def _listed(texts: Iterable[str]) -> str:
    return ", ".join('"' + re.sub(r'(["\\])', r"\\\1", text) + '"' for text in texts)


def _usable(operand: Operand) -> bool:
    if operand.layout == "whole":
        return True
    names = re.findall(r"[A-Za-z_]\w*", re.sub(r"\[[^\]]*\]", "", operand.dims))
    return operand.layout in _KNOWN and all(_POSITIONAL.fullmatch(name) for name in names)


def _whole(operand: Operand) -> str:
    return " ".join(f"d{at}" for at in range(len(operand.shape)))
