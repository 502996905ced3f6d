"""Reading files that anybody may have written: regular files only, bounded, JSON without surprises."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from twinrun.errors import CaptureError

LARGEST_JSON = 64 << 20
LARGEST_INTEGER = (1 << 63) - 1


def open_regular(path: Path) -> int:
    """A file descriptor of a regular file that is no link; CaptureError otherwise."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise CaptureError(f"{path} cannot be read: {_reason(error)}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CaptureError(f"{path} is no regular file", do="a capture holds plain files only")
    return handle


def read_bytes(path: Path, most: int = LARGEST_JSON) -> bytes:
    """The whole of a regular file of at most ``most`` bytes; CaptureError otherwise."""
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise CaptureError(f"{path} is larger than {most} bytes")
    return data


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """One JSON object; CaptureError names ``where`` for anything else."""
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CaptureError(
            f"{where} is no JSON: {_reason(error)}",
            seen=repr(data[:80]),
            expected="one JSON object",
        ) from None
    if not isinstance(value, dict):
        raise CaptureError(f"{where} is no JSON object", seen=repr(data[:80]))
    return value


def plain_directory(path: Path) -> bool:
    """Whether ``path`` is a directory itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def as_int(value: object, least: int = 0, most: int = LARGEST_INTEGER) -> int:
    """``value`` where it is a whole number within bounds; ValueError."""
    if type(value) is int and least <= value <= most:
        return value
    raise ValueError(f"{_short(value)} is no whole number from {least} to {most}")


def as_text(value: object, most: int = 8192) -> str:
    """``value`` where it is a text that UTF-8 can hold; ValueError."""
    if type(value) is str and len(value) <= most:
        value.encode("utf-8")
        return value
    raise ValueError(f"{_short(value)} is no text of at most {most} characters")


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _short(value: object) -> str:
    # An integer of thousands of digits refuses to become text.
    if type(value) is int and value.bit_length() > 200:
        return "a huge integer"
    return type(value).__name__ if isinstance(value, (dict, list)) else repr(value)[:60]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
