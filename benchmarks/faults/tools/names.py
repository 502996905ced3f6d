"""Names of points, as Twinrun writes them, turned into what they accuse. Pure."""

from __future__ import annotations

from benchmarks.faults.score import Named


def accused(point: str, hint: str = "") -> Named:
    """Which module or parameter a point accuses when it is the first that differs.

    A module's output accuses the module. Its input accuses whoever called it: everything that was
    computed before agrees. A gradient is final in the other direction: that of an input accuses the
    module, that of an output whoever used it.
    """
    path, _, port = point.partition(":")
    if port.startswith(("parameter", "buffer")):
        return Named(path, parameter=True, hint=hint)
    backward = port.endswith(":grad")
    own = port.startswith("input" if backward else "output")
    return Named(path if own else caller(path), hint=hint)


def caller(path: str) -> str:
    """The module that calls the one at ``path``: lists of modules call nothing."""
    parts = path.split(".")[:-1]
    if parts and parts[-1] == "layers":
        parts.pop()
    return ".".join(parts)
