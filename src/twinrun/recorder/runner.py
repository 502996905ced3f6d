"""``twinrun run``: start CMD with the boot file in its path, pass signals on, and sum up what came of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from twinrun.env import variables as V
from twinrun.env.inherited import inherited
from twinrun.errors import UsageError
from twinrun.recorder.command import interpret
from twinrun.recorder.options import Options
from twinrun.recorder.processes import BOOT, read_notes, unreachable
from twinrun.recorder.reached import processes_of
from twinrun.recorder.rundir import create_run, finish_run
from twinrun.recorder.summary import summary, unended

NOBODY_JOINED = 2
CONTAINED = 3
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_FROM_TERMINAL = ("SIGINT", "SIGQUIT")

Say = Callable[[str], None]


def run_program(
    command: Sequence[str], *, out: Path, options: Options, overwrite: bool, say: Say
) -> int:
    """Run ``command`` observed into ``out``; returns the exit code of ``twinrun run``.

    CMD's own code where it is not zero (128 + n for signal n); else 2 where no process joined or
    nothing was recorded, 3 where something went wrong on the way, else 0. UsageError where CMD
    cannot be started, CaptureExistsError where ``out`` is taken. ``say`` gets the summary's lines.
    """
    _must_exist(command)
    directory = create_run(out, command=command, options=options, overwrite=overwrite)
    with tempfile.TemporaryDirectory(prefix="twinrun-notes-") as held:
        notes_directory = Path(held)
        environ = environment(directory, options, notes=notes_directory)
        started = time.perf_counter()
        code = _run(command, environ)
        elapsed_s = time.perf_counter() - started
        notes = read_notes(notes_directory)
    refused = unreachable(interpret(command, environ))
    if refused is not None:
        notes.insert(0, {"kind": "unreachable", "command": list(command), "reason": refused})
    processes = list(processes_of(directory))
    problems = [text for one in processes for text in (*one.problems, *unended(one))]
    finish_run(directory, exit_code=code, complete=not problems, problems=problems)
    for line in summary(directory, processes, notes, elapsed_s):
        say(line)
    recorded = any(one.records for one in processes)
    if not recorded:
        say(_nothing(joined=any(note["kind"] == "joined" for note in notes)))
    if code != 0:
        return code
    return NOBODY_JOINED if not recorded else CONTAINED if problems else 0


def environment(directory: Path, options: Options, *, notes: Path | None = None) -> dict[str, str]:
    """This process's environment with what makes every Python below join ``directory``."""
    environ = inherited()
    environ.update(additions(directory, options, environ))
    if notes is not None:
        environ[V.NOTES.name] = str(notes)
    return environ


def additions(directory: Path, options: Options, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that make a process join, as ``--print-env`` shows them."""
    before = V.PYTHONPATH.get(environ)
    kept = [] if before is None else [before]
    return {
        V.OUT.name: str(directory),
        V.OPTIONS.name: json.dumps(options.to_json(), separators=(",", ":")),
        V.PYTHONPATH.name: os.pathsep.join([BOOT, *kept]),
    }


def _must_exist(command: Sequence[str]) -> None:
    if not command:
        raise UsageError(
            "twinrun run was given no command.", do="twinrun run --out runs/a -- python train.py"
        )
    if shutil.which(command[0]) is not None:
        return
    script = Path(command[0]).suffix == ".py"
    raise UsageError(
        f"the command {command[0]!r} was not found, or is not executable.",
        seen=shlex.join(command),
        expected="a program on PATH, or the path of an executable file",
        do=f"twinrun run ... -- python {shlex.join(command)}" if script else "check its name",
    )


def _run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run to the end with signals passed on; its exit code, 128 + n where signal n ended it."""
    children: list[subprocess.Popen[bytes]] = []
    with _forwarding(children):
        try:
            child = subprocess.Popen(command, env=dict(environ))
        except OSError as error:
            raise UsageError(
                f"the command {command[0]!r} cannot be started: {error.strerror}"
            ) from error
        children.append(child)
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _forwarding(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass signals on to the child while the block runs.

    What a terminal sends (Ctrl-C) it sends to the child too: that is not sent twice.
    """

    def forward(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name in _FROM_TERMINAL and _in_foreground():
            return
        for child in children:
            child.send_signal(number)

    held = {}
    for name in _FORWARDED:
        number = getattr(signal, name, None)
        if number is not None:
            held[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether a terminal's signals reach this process's whole group."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def _nothing(joined: bool) -> str:
    if joined:
        return (
            "NOTHING RECORDED   torch was imported, but no observed module was called and nothing dumped\n"
            "  do        check --taps, --filter and --steps"
        )
    return (
        "NOBODY JOINED   no process of this run imported torch where Twinrun could see it\n"
        "  do        check that CMD starts Python and inherits the environment; workers started\n"
        "            elsewhere join with 'import twinrun.attach' (docs/run.md)"
    )


def print_environment(out: Path, options: Options, *, overwrite: bool) -> dict[str, str]:
    """Make the run directory for workers that are started elsewhere; the variables they need.

    Nobody waits for them, so the run counts as ended at once: each process tells its own end.
    """
    directory = create_run(out, command=(), options=options, overwrite=overwrite)
    finish_run(directory)
    return additions(directory, options, inherited())
