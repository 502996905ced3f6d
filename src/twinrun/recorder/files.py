"""JSON files that are replaced whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinrun.recorder.segment import sync_directory


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace ``path`` with ``value``: a reader sees the old text or the new one. OSError."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
