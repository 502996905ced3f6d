"""Reading a command line: which Python it starts, and whether the boot file would run there."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinrun.recorder.command import interpret
from twinrun.recorder.processes import BOOT, unreachable

JOINS = {"TWINRUN_OUT": "/runs/a", "PYTHONPATH": f"{BOOT}:/mine", "PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["python", "train.py"], None),
        (["/usr/bin/python3.11", "-u", "-m", "train", "-I"], None),
        (["python3", "-I", "train.py"], "-I"),
        (["python3", "-uE", "train.py"], "-E"),
        (["python3", "-X", "dev", "-S", "train.py"], "-S"),
        (["python3", "-W", "-S", "train.py"], None),
        (["python3", "-c", "import sys", "-I"], None),
        (["env", "A=1", "python3", "-I", "x.py"], "-I"),
        (["sh", "-c", "exec python3 -I x.py"], "-I"),
        (["bash", "-c", "cd /tmp && python3 -I x.py"], None),
    ],
)
def test_isolating_flags(words: list[str], flag: str | None) -> None:
    """-I, -E and -S are found where Python would take them, also behind env and sh -c."""
    assert interpret(words).flag == flag


def test_first_line_of_a_script(tmp_path: Path) -> None:
    """A script is what its first line names."""
    script = tmp_path / "tool"
    script.write_text("#!/usr/bin/python3 -E\nprint(1)\n")
    script.chmod(0o755)
    command = interpret([str(script)])
    assert command.is_python
    assert command.flag == "-E"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"TWINRUN_OUT": None}, "TWINRUN_OUT"),
        ({"PYTHONPATH": "/mine"}, "PYTHONPATH was replaced"),
        ({"PYTHONPATH": None}, "PYTHONPATH was replaced"),
    ],
)
def test_environment(change: dict[str, str | None], word: str | None) -> None:
    """A child without our variables cannot be reached, and the reason names the variable."""
    environ = {k: v for k, v in (JOINS | change).items() if v is not None}
    reason = unreachable(interpret(["python3", "x.py"], environ))
    assert (reason is None) if word is None else (reason is not None and word in reason)


def test_other_programs_are_not_missed() -> None:
    """What is no Python is never reported."""
    assert unreachable(interpret(["ls", "-I"], {})) is None
    assert unreachable(interpret(["env", "-i", "python3", "x.py"], JOINS)) is not None
