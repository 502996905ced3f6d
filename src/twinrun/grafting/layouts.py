"""A file of layouts for points that carry none: JSON, for each side name globs with dims texts."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from twinrun.errors import DimsError, UsageError
from twinrun.grafting.point import ROLES
from twinrun.layout.parse import parse_dims

MOST_BYTES = 64 << 20
TOLD = 20
"""Problems of one file that are named; the rest are counted."""

_FORM = '{"baseline": {"*.mlp:output": "b s h"}, "target": {"*.mlp:output": "b s h[tp]"}}'


class Layouts:
    """Dims texts by role and name; a name written out is found before any glob is tried.

    Of the globs the first that matches wins, as with ``--graft-dims``. ``digest`` tells contents
    apart, whatever the spaces and the order of the two sides; "" without a file.
    """

    def __init__(self, rows: Mapping[str, Mapping[str, str]], digest: str = "") -> None:
        self._rows = {role: dict(held) for role, held in rows.items()}
        self._globs = {
            role: [(name, dims) for name, dims in held.items() if any(c in name for c in "*?[")]
            for role, held in rows.items()
        }
        self.digest = digest

    @classmethod
    def load(cls, path: str) -> Layouts:
        """Read a file, once while it does not change; UsageError with every problem in it at once.

        The empty path stands for no file.
        """
        if not path:
            return cls({})
        size, changed = _regular(path)
        return _load(path, size, changed)

    def of(self, role: str, name: str) -> str:
        """The dims text for ``name`` on one side, "" where the file gives none."""
        exact = self._rows.get(role, {}).get(name)
        if exact is not None:
            return exact
        globs = self._globs.get(role, ())
        return next((dims for glob, dims in globs if fnmatchcase(name, glob)), "")

    @property
    def told(self) -> str:
        """The contents in a word, for two sides to compare."""
        count = sum(map(len, self._rows.values()))
        named = f"{count} name{'s' if count != 1 else ''}"
        return f"{named}, sha256 {self.digest[:16]}" if self.digest else ""


def _regular(path: str) -> tuple[int, int]:
    """(bytes, time of change) of a file that can be read to its end."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is no regular file")
    if status.st_size > MOST_BYTES:
        raise UsageError(f"{path} has {status.st_size} bytes, more than {MOST_BYTES}")
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _load(path: str, size: int, changed: int) -> Layouts:
    del size, changed  # a part of the key
    try:
        body = json.loads(Path(path).read_bytes(), object_pairs_hook=_pairs)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON that can be read: {error}", expected=_FORM) from None
    found = list(_problems(body))
    if found:
        told = found[:TOLD] + ([f"and {len(found) - TOLD} more"] if len(found) > TOLD else [])
        raise UsageError(
            f"{path} has {len(found)} problem{'s' if len(found) > 1 else ''}",
            seen="; ".join(told),
            expected=_FORM,
        )
    canonical = json.dumps(sorted((role, list(held.items())) for role, held in body.items()))
    return Layouts(body, hashlib.sha256(canonical.encode()).hexdigest())


class _Twice(dict[str, Any]):
    """An object of the file that names a key twice."""

    repeated: str = ""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) == len(pairs):
        return held
    seen: set[str] = set()
    twice = _Twice(held)
    twice.repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return twice


def _problems(body: Any) -> list[str]:
    if not isinstance(body, dict):
        return [f"it holds a {type(body).__name__}, no object"]
    found = [f"{body.repeated!r} is there twice"] if isinstance(body, _Twice) else []
    for role, rows in body.items():
        if role not in ROLES:
            found.append(f"{_short(role)} is neither 'baseline' nor 'target'")
        elif not isinstance(rows, dict):
            found.append(f"{role} holds a {type(rows).__name__}, no object")
        else:
            if isinstance(rows, _Twice):
                found.append(f"{role} names {_short(rows.repeated)} twice")
            found += [text for name, dims in rows.items() if (text := _row(role, name, dims))]
    return found


def _row(role: str, name: str, dims: Any) -> str:
    if not name:
        return f"{role} has an empty name"
    if not isinstance(dims, str):
        return f"{role} {_short(name)}: {type(dims).__name__} is no dims text"
    try:
        parse_dims(dims)
    except DimsError as error:
        return f"{role} {_short(name)}: {error.summary}"
    return ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:117]}...")
