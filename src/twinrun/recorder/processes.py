"""Notes from the processes of a run to `twinrun run`, and which children cannot be reached."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinrun.env import variables as V
from twinrun.recorder.command import Command, interpret

BOOT = str(Path(__file__).absolute().with_name("boot"))
"""The directory that PYTHONPATH begins with in every process that can be reached."""

_told: set[tuple[str, ...]] = set()


def leave_note(kind: str, **facts: Any) -> None:
    """Append one line to this process's notes; `twinrun run` reads them when CMD has ended."""
    directory = V.NOTES.get()
    if directory is None:
        return
    argv = list(getattr(sys, "orig_argv", None) or getattr(sys, "argv", []))
    line = json.dumps({"kind": kind, "pid": os.getpid(), "argv": argv, **facts}) + "\n"
    try:
        file = os.open(
            directory / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
        )
    except OSError:
        # The parent has gone and taken the directory with it: nobody is left to read.
        return
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read_notes(directory: Path) -> list[dict[str, Any]]:
    """Every note in ``directory``, by process; lines that a killed process left half are skipped."""
    notes = []
    for path in sorted(directory.glob("*.jsonl")):
        for line in path.read_text(errors="replace").splitlines():
            try:
                note = json.loads(line)
            except ValueError:
                continue
            if isinstance(note, dict) and isinstance(note.get("kind"), str):
                notes.append(note)
    return notes


def child_starts(event: str, arguments: tuple[Any, ...]) -> None:
    """Leave a note when the child of this audit event is a Python that cannot be reached."""
    if event == "subprocess.Popen":
        executable, argv, _, environ = arguments
    elif event == "os.spawn":
        _, executable, argv, environ = arguments
    else:
        executable, argv, environ = arguments
    command = interpret(_words(executable, argv), None if environ is None else _texts(environ))
    reason = unreachable(command)
    key = (reason or "", *command.words)
    if reason is None or key in _told:
        return
    _told.add(key)
    leave_note("unreachable", command=list(command.words), reason=reason)


def unreachable(command: Command) -> str | None:
    """Why this command's Python would never run the boot file; None when it would, or is no Python."""
    if not command.is_python:
        return None
    if command.flag is not None:
        return f"{command.flag} makes Python ignore PYTHONPATH or skip its start-up files"
    if command.cleaned:
        return "its environment was emptied"
    if V.OUT.get(command.environ) is None:
        return "its environment was cleaned: TWINRUN_OUT is not in it"
    if BOOT not in (V.PYTHONPATH.get(command.environ) or "").split(os.pathsep):
        return "its PYTHONPATH was replaced and no longer begins with Twinrun's boot directory"
    return None


def _words(executable: Any, argv: Any) -> list[str]:
    words = [argv] if isinstance(argv, (str, bytes, os.PathLike)) else list(argv)
    rest = [os.fsdecode(word) for word in words[1:]]
    first = executable if executable is not None else words[0]
    return [os.fsdecode(first), *rest]


def _texts(environ: Mapping[Any, Any]) -> dict[str, str]:
    return {os.fsdecode(name): os.fsdecode(value) for name, value in environ.items()}
