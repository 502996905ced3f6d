"""How `twinrun run` ends: exit codes, signals, refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import names, program, read, run

pytestmark = pytest.mark.ranks

LINEAR = """
    import os, sys, signal, time, torch
    model = torch.nn.Linear(2, 2)
    model(torch.ones(1, 2))
"""


def test_exit_code_passes_through(tmp_path: Path) -> None:
    """CMD's own code is the run's where it is not zero."""
    ended = run(tmp_path / "a", [sys.executable, program(tmp_path, LINEAR + "    sys.exit(7)\n")])
    assert ended.code == 7
    assert read(tmp_path / "a").run.exit_code == 7


def test_killed_by_a_signal(tmp_path: Path) -> None:
    """128 + n for signal n; what was sealed before is kept."""
    text = LINEAR + "    time.sleep(3)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    ended = run(tmp_path / "a", [sys.executable, program(tmp_path, text)])
    assert ended.code == 128 + signal.SIGKILL
    assert names(tmp_path / "a") == [":input.input", ":output"]
    assert "did not end in order" in ended.err


def test_leaving_through_os_exit(tmp_path: Path) -> None:
    """A process that skips its exit handlers leaves an incomplete capture, and exit code 3."""
    ended = run(
        tmp_path / "a",
        [sys.executable, program(tmp_path, LINEAR + "    time.sleep(2)\n    os._exit(0)\n")],
    )
    assert ended.code == 3
    assert "did not end in order" in ended.err
    assert names(tmp_path / "a") == [":input.input", ":output"]
    assert not read(tmp_path / "a").run.complete


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_forwarded(tmp_path: Path, number: signal.Signals) -> None:
    """A signal to twinrun run reaches CMD, whose own handling decides the exit code."""
    text = LINEAR + (
        "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "    signal.signal(signal.SIGINT, lambda *_: sys.exit(5))\n"
        "    open('ready', 'w').close()\n"
        "    time.sleep(60)\n"
    )
    command = [
        *(sys.executable, "-m", "twinrun", "run", "--out", str(tmp_path / "a"), "--"),
        *(sys.executable, program(tmp_path, text)),
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if (tmp_path / "ready").exists():
            break
        time.sleep(0.1)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert names(tmp_path / "a") == [":input.input", ":output"]


def test_command_not_found(tmp_path: Path) -> None:
    """A command that does not exist is an error of its own, and leaves no directory."""
    ended = run(tmp_path / "a", ["no-such-program"])
    assert ended.code == 2
    assert "'no-such-program' was not found" in ended.err
    assert not (tmp_path / "a").exists()


def test_existing_directory(tmp_path: Path) -> None:
    """A capture is replaced only with --overwrite, and a foreign directory never."""
    command = [sys.executable, program(tmp_path, LINEAR)]
    assert run(tmp_path / "a", command).code == 0
    refused = run(tmp_path / "a", command)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert run(tmp_path / "a", command, "--overwrite").code == 0
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    assert run(tmp_path / "b", command, "--overwrite").code == 2
    assert (tmp_path / "b" / "mine.txt").exists()


@pytest.mark.parametrize(
    "options",
    [["--taps", "a,,b"], ["--filter", "layer <"], ["--steps", "x"], ["--max-bytes", "1 MB"]],
)
def test_wrong_options(tmp_path: Path, options: list[str]) -> None:
    """Options that do not parse are refused before anything runs."""
    ended = run(tmp_path / "a", [sys.executable, program(tmp_path, LINEAR)], *options)
    assert ended.code == 2
    assert not (tmp_path / "a").exists()


def test_nothing_recorded(tmp_path: Path) -> None:
    """A run that was joined but recorded nothing exits 2 and says what to check."""
    command = [sys.executable, program(tmp_path, LINEAR)]
    ended = run(tmp_path / "a", command, "--filter", "name == 'no-such-name'")
    assert ended.code == 2
    assert "NOTHING RECORDED" in ended.err


def test_print_env_and_attach(tmp_path: Path) -> None:
    """A worker started elsewhere joins through the printed variables and import twinrun.attach."""
    printed = subprocess.run(
        [sys.executable, "-m", "twinrun", "run", "--out", str(tmp_path / "a"), "--print-env"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = "import twinrun.attach\n" + LINEAR.replace("\n    ", "\n")
    worker = program(tmp_path, text)
    subprocess.run(
        ["sh", "-c", f"{printed}\nunset PYTHONPATH\nexec {sys.executable} {worker}"], check=True
    )
    assert names(tmp_path / "a") == [":input.input", ":output"]
    alone = subprocess.run([sys.executable, worker], capture_output=True, text=True, check=False)
    assert alone.returncode != 0
    assert "TWINRUN_OUT is not set" in alone.stderr


def test_joining_on_another_node(tmp_path: Path) -> None:
    """Where the run directory does not exist, a worker makes its own with the options that came along."""
    words = [
        sys.executable,
        "-m",
        "twinrun",
        "run",
        "--out",
        str(tmp_path / "a"),
        "--taps",
        "leaves",
    ]
    printed = subprocess.run([*words, "--print-env"], capture_output=True, text=True, check=True)
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    text = "import torch\ntorch.nn.Sequential(torch.nn.ReLU())(torch.ones(1))\n"
    worker = program(tmp_path, text)
    subprocess.run(["sh", "-c", f"{printed.stdout}\nexec {sys.executable} {worker}"], check=True)
    capture = read(tmp_path / "a")
    assert capture.run.options["taps"] == "leaves"
    assert [r.name for r in capture.records] == ["Sequential.0:input.input", "Sequential.0:output"]
