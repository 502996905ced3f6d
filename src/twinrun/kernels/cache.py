"""Compiled kernels on disk: an entry is whole or it is not there.

``<root>/<key>/kernel.cubin`` beside ``entry.json``, which says what it is and gives its SHA-256.
The key covers the source with all its headers, the compiler's options, the architecture and the
compiler's version, so nothing is ever looked up under a key that does not fit.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twinrun.env import variables as V
from twinrun.errors import UnavailableError

BINARY = "kernel.cubin"
ENTRY = "entry.json"


def default_root() -> Path:
    """``TWINRUN_KERNEL_CACHE``, else ``twinrun/kernels`` in the user's cache."""
    chosen = V.KERNEL_CACHE.get()
    return Path(chosen) if chosen is not None else Path.home() / ".cache" / "twinrun" / "kernels"


def key_of(*parts: str) -> str:
    """A name for what these parts describe."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def load_or_build(
    key: str, describe: dict[str, str], build: Callable[[], bytes], root: Path | None = None
) -> bytes:
    """The binary stored under ``key``, built first where there is none.

    Ranks of one host that ask at once build it once: the others wait at a lock. A cache that
    cannot be written (read-only home, full disk) costs the compile, not the run.
    ``UnavailableError`` for an entry that is torn.
    """
    root = root or default_root()
    entry = root / key
    if entry.is_dir():
        return read_entry(entry)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f"{key}.lock"):
            if not entry.is_dir():
                write_entry(entry, build(), describe)
            return read_entry(entry)
    except OSError:
        return build()


def read_entry(entry: Path) -> bytes:
    """The binary of one entry, checked against its digest."""
    try:
        told = json.loads((entry / ENTRY).read_text(encoding="utf-8"))
        binary = (entry / BINARY).read_bytes()
        wanted = told["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _torn(entry, f"{type(error).__name__}: {error}") from error
    if hashlib.sha256(binary).hexdigest() != wanted:
        raise _torn(entry, f"{BINARY} is {len(binary)} bytes and not what {ENTRY} says")
    return binary


def write_entry(entry: Path, binary: bytes, describe: dict[str, str]) -> None:
    """Write an entry in a directory beside its place, sync it, and rename the directory whole."""
    building = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        told = {**describe, "sha256": hashlib.sha256(binary).hexdigest()}
        _write_synced(building / BINARY, binary)
        _write_synced(building / ENTRY, json.dumps(told, indent=1, sort_keys=True).encode())
        _sync_directory(building)
        building.rename(entry)
        _sync_directory(entry.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _torn(entry: Path, seen: str) -> UnavailableError:
    return UnavailableError(
        "a compiled kernel in the cache is torn.",
        seen=f"{entry}: {seen}",
        expected=f"{BINARY} and {ENTRY}, written whole",
        do=f"rm -r {entry}",
    )
