"""The run directory: made by whoever starts a capture, joined by every process of the run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import twinrun
from twinrun.env import variables as V
from twinrun.errors import CaptureError, CaptureExistsError
from twinrun.recorder.files import write_json
from twinrun.recorder.options import Options

FORMAT = 1
"""Version of the run directory's format; a reader refuses newer ones."""

RUN = "run.json"
PROCESSES = "processes"


def create_run(
    path: str | os.PathLike[str],
    *,
    command: Sequence[str],
    options: Options,
    origin: str = "run",
    overwrite: bool = False,
) -> Path:
    """Make the run directory, or join it where another process of the same job just made it.

    origin: ``run`` (``twinrun run`` owns it and will call ``finish_run``) or ``capture`` (each
    process of a job opens it with ``tr.capture``). CaptureExistsError where something else is
    there, ``overwrite`` or not when it is no capture; CaptureError where it cannot be made.
    """
    directory = Path(path).absolute()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory.parent):
            if origin == "capture" and _joinable(directory):
                return directory
            _make_way(directory, overwrite)
            _lay_out(directory, command, options, origin)
    except OSError as error:
        raise CaptureError(
            f"the run directory {directory} cannot be made: {error.strerror or error}"
        ) from error
    return directory


def read_run(directory: Path) -> dict[str, Any]:
    """What run.json holds, for a process that joins; CaptureError where it is no capture."""
    try:
        held = json.loads((directory / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CaptureError(
            f"{directory} is no run directory",
            seen=f"{RUN}: {error}",
            do="start the program with twinrun run, or open a capture with tr.capture",
        ) from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise CaptureError(f"{directory / RUN} is not of format {FORMAT}", seen=str(held)[:200])
    return held


def finish_run(
    path: str | os.PathLike[str],
    *,
    exit_code: int | None = None,
    complete: bool = True,
    problems: Sequence[str] = (),
) -> None:
    """Note that the run has ended. CaptureError where run.json cannot be replaced."""
    directory = Path(path)
    ending = {"state": "ended", "exit_code": exit_code, "complete": complete}
    try:
        write_json(directory / RUN, read_run(directory) | ending | {"problems": list(problems)})
    except OSError as error:
        raise CaptureError(f"{directory / RUN} cannot be written: {error}") from error


def _lay_out(directory: Path, command: Sequence[str], options: Options, origin: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / PROCESSES).mkdir(exist_ok=True)
    write_json(
        directory / RUN,
        {
            "format": FORMAT,
            "twinrun": twinrun.__version__,
            "origin": origin,
            "command": [word.encode("utf-8", "backslashreplace").decode() for word in command],
            "options": options.to_json(),
            "mesh": options.mesh,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "job": _job(),
            "state": "running",
            "exit_code": None,
            "complete": False,
            "problems": [],
        },
    )


def _make_way(directory: Path, overwrite: bool) -> None:
    """Leave nothing where the capture goes; only a capture or an empty directory is removed."""
    if not directory.exists() and not directory.is_symlink():
        return
    if directory.is_dir() and not directory.is_symlink() and not any(directory.iterdir()):
        return
    if not (directory / RUN).is_file() or directory.is_symlink():
        raise CaptureExistsError(
            f"{directory} exists and is no capture",
            do="name a directory that does not exist; Twinrun removes nothing that it did not make",
        )
    if not overwrite:
        raise CaptureExistsError(
            f"{directory} holds a capture already",
            do="name another directory, or pass --overwrite (overwrite=True) to replace it",
        )
    # Out of the way in one rename, so that nobody sees it half removed.
    grave = directory.with_name(f".{directory.name}.{os.urandom(4).hex()}.old")
    directory.rename(grave)
    shutil.rmtree(grave)


def _joinable(directory: Path) -> bool:
    """Whether a sibling of this job opened it for the capture that this process opens now."""
    try:
        held = read_run(directory)
    except CaptureError:
        return False
    mine = held.get("job") == _job() and held.get("origin") == "capture"
    return mine and _job() is not None and not _took_part(directory)


def _took_part(directory: Path) -> bool:
    """Whether this process has been in this capture before, so that now it means a new one."""
    here = (os.getpid(), socket.gethostname())
    for path in (directory / PROCESSES).glob("*/process.json"):
        with contextlib.suppress(OSError, ValueError):
            held = json.loads(path.read_text(encoding="utf-8"))
            if (held.get("pid"), held.get("host")) == here:
                return True
    return False


def _job() -> str | None:
    """What the processes of one distributed job share and no other job does, or None.

    The launcher's process on this host, and, where it set one, its run's id and store.
    """
    if not V.RANK.is_set():
        return None
    store = [V.MASTER_ADDR.get() or "", str(V.MASTER_PORT.get() or "")]
    try:
        # Field 22 of the stat line is when the process started: a pid alone comes round again.
        stat = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="utf-8", errors="replace")
        started = stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = ""
    text = "\n".join([socket.gethostname(), str(os.getppid()), started, *store])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the one lock on ``directory``: several ranks may open one capture at once."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Some network file systems refuse locks on directories; there the first rename wins.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
