"""Modules chosen by globs over their paths, as ``--shadow`` and ``--operators`` name them."""

from __future__ import annotations

from fnmatch import fnmatchcase


class Chosen:
    """Which module paths a text of globs with commas takes; ``*`` also crosses dots."""

    def __init__(self, text: str) -> None:
        self._globs = [glob.strip() for glob in text.split(",") if glob.strip()]
        self._known: dict[str, bool] = {}

    def __contains__(self, module: str) -> bool:
        known = self._known.get(module)
        if known is None:
            known = any(fnmatchcase(module, glob) for glob in self._globs)
            self._known[module] = known
        return known
