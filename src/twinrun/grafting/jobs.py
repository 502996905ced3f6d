"""``twinrun graft``: two commands started side by side, ended together, and what came of their graft."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from twinrun.errors import UsageError
from twinrun.grafting.settings import Settings, ended_mark
from twinrun.recorder.options import Options
from twinrun.recorder.rundir import create_run, finish_run
from twinrun.recorder.runner import environment

_STOP_S = 10.0
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two jobs: its command, settings, capture directory, recording options and GPUs.

    ``settings`` None: it is observed and takes part in no graft. ``log``: a file that gets what it
    prints, else that goes where ours goes.
    """

    command: tuple[str, ...]
    settings: Settings | None
    directory: Path
    options: Options
    gpus: str = ""
    log: Path | None = None
    overwrite: bool = False
    """whether a capture that is in the directory already is replaced"""


class Interrupted(Exception):
    """A signal asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def split_command(text: str, flag: str) -> tuple[str, ...]:
    """The words of a command line; UsageError where it does not parse or cannot be found."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{flag} {text!r} does not parse: {error}") from None
    if not words:
        raise UsageError(f"{flag} is empty", do=f'{flag} "python serve.py"')
    if shutil.which(words[0]) is None:
        raise UsageError(f"the command {words[0]!r} of {flag} was not found, or is not executable")
    return words


def free_port() -> int:
    """A port of this host that nobody listens on at the moment.

    Below the range that systems hand out by themselves, so that nobody is given it before the jobs
    have started and listen on it.
    """
    for port in secrets.SystemRandom().sample(range(20000, 32768), 64):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_token() -> str:
    """A secret for one graft."""
    return secrets.token_hex(16)


def run_sides(sides: Sequence[Side], say: Callable[[str], None]) -> list[int]:
    """Run all sides to their ends; the exit code of each, 128 + n where signal n ended it.

    An interrupt, or an error here, ends every process that the commands started, also those that
    left their process group.
    """
    others = set(_children())
    with _reaping(), _signals():
        running: list[subprocess.Popen[bytes]] = []
        try:
            for side in sides:
                running.append(_start(side))
            codes = _wait(running, sides, say)
        except Interrupted as interrupt:
            _stop(running, others)
            codes = [128 + interrupt.number] * len(sides)
        finally:
            _stop(running, others)
    for side, code in zip(sides, codes, strict=True):
        finish_run(side.directory, exit_code=code)
    return codes


def _start(side: Side) -> subprocess.Popen[bytes]:
    create_run(side.directory, command=side.command, options=side.options, overwrite=side.overwrite)
    environ = environment(side.directory, side.options)
    if side.settings is not None:
        environ |= side.settings.to_environment()
    # torchrun takes this where its command line names no port; two of them would share 29500.
    environ.setdefault("PET_MASTER_PORT", str(free_port()))
    if side.gpus:
        environ["CUDA_VISIBLE_DEVICES"] = side.gpus
    try:
        if side.log is None:
            return subprocess.Popen(side.command, env=environ, start_new_session=True)
        with side.log.open("ab") as log:
            return subprocess.Popen(
                side.command, env=environ, start_new_session=True, stdout=log, stderr=log
            )
    except OSError as error:
        raise UsageError(f"{side.command[0]!r} cannot be started: {error.strerror}") from error


def _wait(
    running: Sequence[subprocess.Popen[bytes]], sides: Sequence[Side], say: Callable[[str], None]
) -> list[int]:
    told: set[int] = set()
    while True:
        codes = [child.poll() for child in running]
        for at, code in enumerate(codes):
            if code is None or at in told:
                continue
            told.add(at)
            _tell_the_others(sides, at)
            if code:
                settings = sides[at].settings
                role = "program" if settings is None else settings.role
                say(f"the {role} ended with {_ended(code)}")
        if all(code is not None for code in codes):
            return [code if code >= 0 else 128 - code for code in codes if code is not None]
        time.sleep(0.05)


def _tell_the_others(sides: Sequence[Side], at: int) -> None:
    """A job that waits for ranks of one that has ended would wait for the whole meeting timeout."""
    ended = sides[at].settings
    for side in sides:
        if side is not sides[at] and side.settings is not None and ended is not None:
            directory = Path(side.settings.journal)
            directory.mkdir(parents=True, exist_ok=True)
            ended_mark(side.settings.journal, ended.role).touch()


def _ended(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"


def _stop(running: Sequence[subprocess.Popen[bytes]], others: Set[int]) -> None:
    """End what still runs: asked first, then killed; with whatever it left behind.

    ``others`` are children that this process had before: they are not ours to end.
    """
    alive = [child for child in running if child.poll() is None]
    for child in alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
    until = time.monotonic() + _STOP_S
    while time.monotonic() < until and any(child.poll() is None for child in alive):
        time.sleep(0.05)
    for child in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    for child in alive:
        child.wait()
    _kill_orphans({child.pid for child in running} | others)


def _kill_orphans(known: Set[int]) -> None:
    """Kill what was left to this process when its parent ended (torchrun's workers lead groups of their own)."""
    for _ in range(20):
        orphans = [pid for pid in _children() if pid not in known]
        if not orphans:
            return
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


@contextmanager
def _reaping() -> Iterator[None]:
    """Inherit the orphans of what is started here, while the block runs."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@contextmanager
def _signals() -> Iterator[None]:
    """Turn the signals that ask for an end into Interrupted."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    held: Mapping[int, object] = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
