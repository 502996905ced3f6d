"""Runs of the two programs: each observed, some with the baseline's values grafted in."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from twinrun.diagnosis.finding import Pass
from twinrun.errors import TwinrunError
from twinrun.grafting.jobs import Side, free_port, new_token, run_sides
from twinrun.grafting.settings import Settings
from twinrun.recorder.options import Options

_TAIL = 12
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Program:
    """One side: its command, the rank axes that it cannot tell itself, and its GPUs."""

    command: tuple[str, ...]
    mesh: str = ""
    gpus: str = ""

    @property
    def text(self) -> str:
        """The command as one would type it."""
        return shlex.join(self.command)


@dataclass(frozen=True, slots=True)
class Grafts:
    """What a pass puts into the target: a filter of points that flow from the baseline."""

    b2t: str
    layouts: str = ""


@dataclass
class Passes:
    """Starts passes one after another and keeps what came of them.

    ``baseline`` None: ``capture`` stands in for it. ``live``: where a pass grafts, both programs run
    in step and the baseline's values come from the program instead of from its capture. ``kept``:
    ``work`` will still be there when blame is over.
    """

    baseline: Program | None
    target: Program
    work: Path
    say: Callable[[str], None]
    capture: Path | None = None
    live: bool = False
    timeout_s: float = 300.0
    kept: bool = True
    done: list[Pass] = field(default_factory=list)

    def plain(self, side: str, purpose: str, options: Options) -> Path:
        """Run one side as it is; its capture. TwinrunError where it fails."""
        program = self._program(side)
        directory = self._directory(side)
        log = directory.with_suffix(".log")
        options = replace(options, mesh=program.mesh)
        sides = [Side(program.command, None, directory, options, program.gpus, log)]
        self._run(side, purpose, program.text, sides, directory)
        return directory

    def grafted(self, purpose: str, grafts: Grafts, options: Options) -> tuple[Path, Path]:
        """Run the target with values of the baseline in it; (baseline's capture, target's)."""
        if self.live:
            return self._in_step(purpose, grafts, options)
        assert self.capture is not None
        directory = self._directory("target")
        settings = self._settings("target", directory, grafts, source=str(self.capture.absolute()))
        side = self._side(self.target, settings, directory, options)
        self._run("target", purpose, self.target.text, [side], directory)
        return self.capture, directory

    def _in_step(self, purpose: str, grafts: Grafts, options: Options) -> tuple[Path, Path]:
        assert self.baseline is not None
        shared = {"address": f"127.0.0.1:{free_port()}", "token": new_token()}
        place = self._directory("both")
        # Instruments are the target's; the baseline's were read in a run of its own.
        observed = replace(options, natives="", aliases="", shadow="", operators="")
        sides = []
        for role, program in (("baseline", self.baseline), ("target", self.target)):
            directory = place / role
            settings = self._settings(role, directory, grafts, **shared)
            chosen = options if role == "target" else observed
            sides.append(self._side(program, settings, directory, chosen))
        place.mkdir(parents=True)
        text = f"{self.baseline.text}   and   {self.target.text}"
        self._run("both", purpose, text, sides, place)
        return place / "baseline", place / "target"

    def _settings(self, role: str, directory: Path, grafts: Grafts, **more: str) -> Settings:
        return Settings(
            role=role,
            b2t=grafts.b2t,
            layouts=grafts.layouts,
            journal=str(directory / "graft"),
            mesh=self._program(role).mesh if role == "target" or self.baseline else "",
            log="off",
            timeout_s=self.timeout_s,
            **more,  # type: ignore[arg-type]
        ).check()

    def _side(
        self, program: Program, settings: Settings, directory: Path, options: Options
    ) -> Side:
        options = replace(options, mesh=program.mesh)
        log = directory.parent / f"{directory.name}.log"
        return Side(program.command, settings, directory, options, program.gpus, log)

    def _program(self, side: str) -> Program:
        if side == "target":
            return self.target
        assert self.baseline is not None
        return self.baseline

    def _directory(self, side: str) -> Path:
        return self.work / f"{len(self.done) + 1}-{side}"

    def _run(
        self, side: str, purpose: str, command: str, sides: Iterable[Side], directory: Path
    ) -> None:
        number = len(self.done) + 1
        self.say(f"pass {number}   {side}: {purpose}")
        self.work.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        listed = list(sides)
        codes = run_sides(listed, lambda line: None)
        code = next((one for one in codes if one), 0)
        seconds = time.monotonic() - begun
        self.done.append(
            Pass(number, side, purpose, command, str(directory), seconds, code)  # type: ignore[arg-type]
        )
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            failed = next(one for one, ended in zip(listed, codes, strict=True) if ended)
            raise TwinrunError(
                f"pass {number} ended with {code}: {purpose}",
                seen=_tail(failed.log),
                expected="a program that runs to its end, as it does without Twinrun",
                do=f"run it by itself: {shlex.join(failed.command)}   (all of its output: {failed.log})",
            )


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return "no output"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_TAIL:]) or "no output"
