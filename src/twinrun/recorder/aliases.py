"""Names that the other run of a graft uses for this run's points: a JSON object of texts."""

from __future__ import annotations

import json
from pathlib import Path

from twinrun.errors import UsageError

MOST_BYTES = 64 << 20


def read_aliases(path: str) -> dict[str, str]:
    """Own name -> the other run's; nothing for the empty path. UsageError where it is no such file."""
    if not path:
        return {}
    file = Path(path)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise UsageError(f"the file of names {path} is larger than {MOST_BYTES >> 20} MiB")
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"the file of names {path} cannot be read", seen=str(error)) from error
    if not isinstance(held, dict) or not all(isinstance(text, str) for text in held.values()):
        raise UsageError(f"the file of names {path} is no JSON object of texts")
    return held
