"""Whether processes here may share memory, and whether one sees what another put there."""

from __future__ import annotations

import os
from pathlib import Path

from twinrun.topology.fact import Fact

SHARED = Path("/dev/shm")
_PREFIX = "twinrun-"


def shared_bytes(where: Path = SHARED) -> Fact[int | None]:
    """Bytes free where CPU ranks share memory; None where nothing can be written there."""
    try:
        found = os.statvfs(where)
    except OSError as error:
        return Fact(None, f"{where}: {error.strerror}")
    if not os.access(where, os.W_OK):
        return Fact(None, f"{where} cannot be written to")
    return Fact(found.f_bavail * found.f_frsize, f"statvfs of {where}")


def leave_token(token: str, where: Path = SHARED) -> Path | None:
    """Leave a token for the peers to find; None where nothing can be written. The caller unlinks it."""
    path = where / f"{_PREFIX}{token}"
    try:
        with path.open("x") as file:
            file.write(token)
    except OSError:
        return None
    return path


def sees_token(token: str, where: Path = SHARED) -> bool:
    """Whether the token that a peer left is there, whole."""
    try:
        return (where / f"{_PREFIX}{token}").read_text() == token
    except OSError:
        return False
