"""Which requested taps never fired, and why."""

from __future__ import annotations

import re
import sys
from typing import Any

from torch import nn

from twinrun.recorder.registry import Registry
from twinrun.recorder.roots import Entry, Root
from twinrun.recorder.taps import WORDS, parent

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
NEVER_CALLED = "module was never called"
COMPILED = "inside a compiled region"
GRAPH = "called inside a CUDA graph"
NO_MATCH = "no module has such a name"


def unfired(registry: Registry) -> list[dict[str, Any]]:
    """Rows ``{tap, reason, modules}``: globs that match nothing, and chosen modules without a call.

    Modules that differ only in a number (the layers of a stack) share a row.
    """
    rows: dict[tuple[str, str], int] = {}
    for pattern in _without_match(registry):
        rows[pattern, NO_MATCH] = 0
    for root in registry.roots:
        compiled = _compiled(root)
        for entry in _silent(root):
            key = (_NUMBER.sub("*", entry.module) or root.class_name, _reason(entry, compiled))
            rows[key] = rows.get(key, 0) + 1
    return [
        {"tap": tap, "reason": reason, "modules": count} for (tap, reason), count in rows.items()
    ]


def _without_match(registry: Registry) -> list[str]:
    taps = registry.taps
    if taps is None or not registry.roots:
        return []
    left = [pattern for pattern in taps.patterns if pattern not in WORDS]
    for root in registry.roots:
        missing = taps.unmatched(root.nodes, root.label)
        left = [pattern for pattern in left if pattern in missing]
    return left


def _silent(root: Root) -> list[Entry]:
    """The chosen modules that were never called, or only where nothing could be recorded.

    A wrapper and what it wraps count once.
    """
    heard = {e.module for e in root.entries.values() if e.fired or (e.called and not e.in_graph)}
    silent = {
        entry.module: entry
        for entry in root.entries.values()
        if entry.ports is not None and entry.module not in heard
    }
    return list(silent.values())


def _compiled(root: Root) -> set[str]:
    """The modules of a root that torch.compile was put around."""
    return {entry.module for entry in root.entries.values() if _is_compiled(entry.ref())}


def _reason(entry: Entry, compiled: set[str]) -> str:
    if entry.in_graph:
        return GRAPH
    path = entry.module
    while compiled:
        if path in compiled:
            return f"{COMPILED}: {path or entry.root.class_name}"
        if path == entry.root.label or not path:
            break
        path = parent(path) or entry.root.label
    return (
        f"{NEVER_CALLED} from Python, and parts of the program are compiled"
        if _dynamo_ran()
        else NEVER_CALLED
    )


def _is_compiled(module: nn.Module | None) -> bool:
    if module is None:
        return False
    if type(module).__name__ == "OptimizedModule":
        return True
    return getattr(module, "_compiled_call_impl", None) is not None


def _dynamo_ran() -> bool:
    utils = sys.modules.get("torch._dynamo.utils")
    return utils is not None and bool(utils.counters["frames"].get("total"))
