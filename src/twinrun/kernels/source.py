"""A kernel's source: the ``.cu`` file and every header that it reaches, and their digest."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "cuda"
_INCLUDE = re.compile(r'^\s*#include\s+"([a-z0-9_]+\.cuh)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Source:
    """``text`` of the kernel ``name`` and its ``headers`` (name, text), in order of first include."""

    name: str
    text: str
    headers: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the kernel and all that it includes."""
        digest = hashlib.sha256()
        for name, text in ((self.name, self.text), *self.headers):
            digest.update(f"{name}\0{len(text)}\0{text}".encode())
        return digest.hexdigest()


def names() -> tuple[str, ...]:
    """Every kernel there is, by the name of its file and of its function."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.cu")))


@cache
def read(name: str) -> Source:
    """The source of one kernel; ``KeyError`` for a name that is not in ``names()``."""
    if name not in names():
        raise KeyError(name)
    text = (FOLDER / f"{name}.cu").read_text(encoding="utf-8")
    headers: dict[str, str] = {}
    _collect(text, headers)
    return Source(name, text, tuple(headers.items()))


def _collect(text: str, headers: dict[str, str]) -> None:
    for header in _INCLUDE.findall(text):
        if header not in headers:
            headers[header] = (FOLDER / header).read_text(encoding="utf-8")
            _collect(headers[header], headers)
