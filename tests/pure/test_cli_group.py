"""The entry point: which commands there are, how usage errors read, what each ending exits with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from twinrun import __version__
from twinrun.cli import main as entry
from twinrun.cli.main import COMMANDS, run, twinrun
from twinrun.errors import CaptureError


def planted(monkeypatch: pytest.MonkeyPatch, name: str, callback: object) -> None:
    """Put one more command into the group for a test."""
    monkeypatch.setitem(twinrun.summaries, name, "")
    monkeypatch.setitem(twinrun.commands, name, click.command(name)(callback))


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the package's version and exits 0."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"twinrun {__version__}\n"


def test_help_lists_every_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names every command and says what each is for."""
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        line = next(line for line in out.splitlines() if line.strip().startswith(name))
        assert len(line.split()) > 2, line


def test_help_imports_neither_torch_nor_rich() -> None:
    """The help of the group and of every command is instant: no torch, no rich, no pydantic."""
    code = (
        "import sys; from twinrun.cli.main import run, COMMANDS\n"
        "assert run(['--help']) == 0\n"
        "held = {name for name in COMMANDS if f'twinrun.cli.{name}' in sys.modules}\n"
        "assert not held, held\n"
        "for name in COMMANDS: assert run([name, '--help']) == 0, name\n"
        "heavy = {'torch', 'rich', 'pydantic', 'yaml', 'numpy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_is_the_commands_own(name: str) -> None:
    """The group's table says of each command what the command says of itself."""
    command = twinrun.get_command(click.Context(twinrun), name)
    assert command is not None
    assert command.get_short_help_str(400) == COMMANDS[name]


def test_no_arguments_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command there is no work: the help goes to stderr, the exit code is 2."""
    assert run([]) == 2
    assert "Usage: twinrun" in capsys.readouterr().err


def test_unknown_command_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt command exits 2 and offers the nearest one."""
    planted(monkeypatch, "compare", lambda: None)
    assert run(["compaer"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("twinrun: No such command 'compaer'. Did you mean 'compare'?\n")
    assert "  do        twinrun --help" in err


def test_unknown_option_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt option exits 2, offers the nearest one and names the command's help."""
    planted(monkeypatch, "compare", click.option("--noise")(lambda noise: None))
    assert run(["compare", "--noize", "x"]) == 2
    err = capsys.readouterr().err
    assert "--noise" in err
    assert err.endswith("  do        twinrun compare --help\n")


def test_an_error_says_seen_expected_and_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A TwinrunError is printed with its rows on stderr, without a traceback, and exits 2."""

    def fails() -> None:
        raise CaptureError("runs/a is empty.", seen="no run.json", expected="a capture", do="x")

    planted(monkeypatch, "fails", fails)
    assert run(["fails"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "twinrun: runs/a is empty.\n  seen      no run.json\n  expected  a capture\n  do        x\n"
    )


@pytest.mark.parametrize("code", [0, 1, 2, 3, None])
def test_a_command_returns_its_exit_code(monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    """What a command's callback returns is the exit code; None is 0."""
    planted(monkeypatch, "ends", lambda: code)
    assert run(["ends"]) == (code or 0)


def test_control_c_is_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends with 130 and one line, no traceback."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    planted(monkeypatch, "waits", interrupted)
    assert run(["waits"]) == entry.INTERRUPTED == 130
    assert capsys.readouterr().err.strip() == "twinrun: interrupted"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is not Twinrun's own is never dressed up as a user's error."""

    def broken() -> None:
        raise ZeroDivisionError

    planted(monkeypatch, "broken", broken)
    with pytest.raises(ZeroDivisionError):
        run(["broken"])


def test_a_misspelt_variable_stops_every_command() -> None:
    """An unknown TWINRUN_ variable exits 2 with the nearest name, before the command does anything."""
    code = (
        "import sys, click, types\n"
        "from twinrun.cli.main import run, twinrun\n"
        "module = types.ModuleType('planted'); sys.modules['twinrun.cli.planted'] = module\n"
        "module.command = click.command('planted')(lambda: print('ran'))\n"
        "twinrun.summaries['planted'] = 'planted'\n"
        "print(run(['planted']))"
    )
    environment = {"PATH": "", "TWINRUN_KERNEL_CACH": "/x"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.stdout == "2\n"
    assert "did you mean TWINRUN_KERNEL_CACHE?" in done.stderr


def test_python_dash_m_is_the_same_command() -> None:
    """python -m twinrun runs the same entry point."""
    done = subprocess.run(
        [sys.executable, "-m", "twinrun", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"twinrun {__version__}\n"


def test_demo_program_does_not_know_twinrun() -> None:
    """The program that the demo observes imports nothing of Twinrun."""
    source = (Path(entry.__file__).parent / "demo_program.py").read_text()
    assert not [
        line for line in source.splitlines() if "import" in line and "twinrun" in line.lower()
    ]


def test_run_starts_without_torch() -> None:
    """What `twinrun run` needs before CMD starts imports no torch: CMD does not wait for it."""
    told = "import sys, twinrun.cli.run, twinrun.recorder.runner; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
