"""A layout file: dims texts by glob, for tensors that nothing in the run annotates."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from twinrun.comparison.settings import read_yaml
from twinrun.errors import DimsError, UsageError
from twinrun.layout import Dims, parse_dims


class Layouts:
    """Name globs with dims; the last glob that matches wins. Counts which globs were ever used."""

    def __init__(self, globs: Mapping[str, Dims] | None = None) -> None:
        self._globs = dict(globs or {})
        self._used: set[str] = set()

    @classmethod
    def load(cls, path: str | Path) -> Layouts:
        """Read a file; UsageError and DimsError name every entry that does not parse."""
        held = read_yaml(path, "layout file")
        if not isinstance(held, dict) or not all(
            isinstance(part, str) for pair in held.items() for part in pair
        ):
            raise UsageError(
                f"the layout file {path} is no mapping from name globs to dims texts",
                seen=type(held).__name__,
                expected='lines such as  "model.layers.*.mlp:output": "b s h"',
                do="see docs/dims.md",
            )
        return cls(_parsed(held, str(path)))

    def find(self, name: str) -> Dims | None:
        """The dims for this point, if the file gives any."""
        for glob, dims in reversed(self._globs.items()):
            if fnmatchcase(name, glob):
                self._used.add(glob)
                return dims
        return None

    @property
    def unused(self) -> tuple[str, ...]:
        """Globs that matched no point for which a layout was wanted."""
        return tuple(glob for glob in self._globs if glob not in self._used)


def _parsed(held: Mapping[str, str], path: str) -> dict[str, Dims]:
    parsed, wrong = {}, []
    for glob, text in held.items():
        try:
            parsed[glob] = parse_dims(text)
        except DimsError as error:
            wrong.append(f"{glob}: {error.summary}")
    if wrong:
        raise DimsError(
            f"{len(wrong)} dims texts in {path} do not parse",
            seen="; ".join(wrong),
            do="see docs/dims.md for the grammar",
        )
    return parsed
