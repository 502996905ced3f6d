"""Becoming torchrun: the launch's own process is replaced, so that signals and codes are torchrun's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import which
from typing import NoReturn

from twinrun.errors import LaunchError
from twinrun.launch.args import Platform
from twinrun.launch.decision import Resolved
from twinrun.launch.render import command_line
from twinrun.topology import driver_files
from twinrun.topology.gpus import Gpus
from twinrun.topology.job import open_mpi, slurm
from twinrun.topology.visible import visible


def look(visible_devices: str | None) -> Platform:
    """This machine's GPUs from what their drivers leave behind: no library is loaded for it."""
    for source in (driver_files.nvidia, driver_files.amd):
        found = source()
        if isinstance(found, Gpus):
            shown = visible(visible_devices, found.gpus)
            how = (
                found.how if visible_devices is None else f"CUDA_VISIBLE_DEVICES={visible_devices}"
            )
            return Platform(shown.count, found.vendor, how)
    return Platform(0, how="no GPU driver's files")


def check_command(command: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """``LaunchError`` where the command is not there, before any rank is started."""
    first = command[0]
    if first == "-m":
        return
    found = (
        Path(first).is_file() if first.endswith(".py") else which(first, path=environ.get("PATH"))
    )
    if not found:
        raise LaunchError(
            f"the command {first!r} was not found.",
            seen=f"no such file from {Path.cwd()}, nor on PATH",
            do="give a path to it; a script ends in .py, a module is -m NAME",
        )


def become(resolved: Resolved) -> NoReturn:
    """Replace this process by torchrun with the resolved command and environment."""
    sys.stdout.flush()
    sys.stderr.flush()
    _call_the_roll(resolved)
    line = command_line(resolved)
    os.execve(line[0], line, dict(resolved.environment))


def _call_the_roll(resolved: Resolved) -> None:
    """Several nodes that were numbered by hand tell each other their numbers; a scheduler's are right."""
    if resolved.args.nodes > 1 and not (
        slurm(resolved.environment) or open_mpi(resolved.environment)
    ):
        from twinrun.launch.roll_call import call_beside

        call_beside(resolved.args)
