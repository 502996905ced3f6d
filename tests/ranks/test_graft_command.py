"""``twinrun graft`` and ``twinrun run --graft-role`` end to end: commands, exit codes, interrupts, healing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from twinrun.grafting.jobs import free_port

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]

PROGRAM = """
    import sys, time, torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, faulty):
            super().__init__()
            self.first, self.second, self.faulty = nn.Linear(16, 16), nn.Linear(16, 16), faulty

        def forward(self, x):
            y = self.first(x)
            return x + self.second(torch.tanh(y * 1.3 if self.faulty else y))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([Block("fault" in sys.argv and i == 1) for i in range(3)])

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for step in range(2):
            out = net(torch.randn(4, 16, generator=torch.Generator().manual_seed(step)))
            print(f"step {step} sum {out.double().sum():.12f}", flush=True)
    time.sleep(60 if "linger" in sys.argv else 0)
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return f"{sys.executable} {path}"


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def twinrun(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twinrun", *words]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def sums(out: str) -> list[str]:
    return [line.split("sum ")[1] for line in out.splitlines() if line.startswith("step ")]


def test_one_command_runs_both_and_heals_the_fault(program: str, tmp_path: Path) -> None:
    """The fault is healed by grafting its layer's output; exit code 0, a line a graft on both sides."""
    done = twinrun(
        "graft", "--baseline", program, "--target", f"{program} fault", "--b2t", "name == 'layers.1:output'",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = sorted(sums(done.stdout))
    assert found[0] == found[1] and found[2] == found[3]
    assert len(re.findall(r"^sent +b2t  step \d  layers\.1:output", done.stderr, re.M)) == 2
    assert len(re.findall(r"^received  b2t  step \d  layers\.1:output", done.stderr, re.M)) == 2
    assert "2 grafts received, 2 sent" in done.stderr


def test_two_jobs_started_apart_meet(program: str, tmp_path: Path) -> None:
    """The same with two runs that know only an address; another layer's graft does not heal."""
    address = f"127.0.0.1:{free_port()}"
    common = ["--graft-address", address, "--graft-baseline-ranks", "1", "--graft-target-ranks", "1", "--b2t", "name == 'layers.0:output'"]  # fmt: skip
    command = [sys.executable, "-m", "twinrun", "run"]
    first = subprocess.Popen(
        [*command, "--out", "a", "--graft-role", "baseline", *common, "--", *program.split()],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    second = twinrun(
        "run",
        "--out",
        "b",
        "--graft-role",
        "target",
        *common,
        "--",
        *program.split(),
        "fault",
        cwd=tmp_path,
    )
    out, err = first.communicate(timeout=200)
    assert (first.returncode, second.returncode) == (0, 0), err + second.stderr
    assert "2 grafts received, 0 sent" in second.stderr
    assert sums(out) != sums(second.stdout)


def test_wrong_settings_are_told_all_at_once(program: str, tmp_path: Path) -> None:
    """Nothing starts, every problem is named, also under python -O; the error is a ValueError."""
    code = (
        "from twinrun.grafting.settings import Settings\n"
        "try: Settings(role='both', address='nowhere', b2t='(', log='loud', timeout_s=-1).check()\n"
        "except ValueError as error: print(error)\n"
    )
    for flags in ([], ["-O"]):
        done = subprocess.run(
            [sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True
        )
        for word in (
            "5 settings are wrong",
            "role 'both'",
            "'nowhere'",
            "--b2t",
            "'loud'",
            "--graft-timeout",
        ):
            assert word in done.stdout, done.stdout
    done = twinrun("graft", "--target", program, "--b2t", "x", cwd=tmp_path)
    assert done.returncode == 2 and "neither CAPTURE nor --baseline" in done.stderr


@pytest.mark.parametrize("strict", [False, True])
def test_what_fails_is_spared_the_programs_unless_strict(
    program: str, tmp_path: Path, strict: bool
) -> None:
    """A transform that raises: both programs end as without a graft, and the command with 3; or it stops."""
    (tmp_path / "spoils.py").write_text("def it(context):\n    raise ValueError('not today')\n")
    done = twinrun(
        "graft", "--baseline", program, "--target", program, "--b2t", "name == 'layers.1:output'",
        "--transform", "spoils.it", *(["--strict"] if strict else []), cwd=tmp_path,
    )  # fmt: skip
    assert "spoils.it raised ValueError: not today" in done.stderr
    if strict:
        assert done.returncode == 1 and len(sums(done.stdout)) < 4
        assert "Traceback" in done.stderr and "PointFailed" in done.stderr, done.stderr
    else:
        assert done.returncode == 3 and "of these transforms 2" in done.stderr
        found = sorted(sums(done.stdout))
        assert found[0] == found[1] and found[2] == found[3]


@pytest.mark.parametrize("strict", [False, True])
def test_the_survivor_of_a_killed_peer_ends_with_3_or_stops(tmp_path: Path, strict: bool) -> None:
    """Jobs started apart: the one whose partner is killed goes on ungrafted, or stops when strict."""
    program = tmp_path / "program.py"
    text = textwrap.dedent(PROGRAM)
    program.write_text(text)
    dying = "step and __import__('os').kill(__import__('os').getpid(), 9)\n        out = net("
    (tmp_path / "dying.py").write_text(text.replace("out = net(", dying))
    # What flows the other way first makes sure that both have met by then.
    common = [
        "--graft-address", f"127.0.0.1:{free_port()}", "--graft-meeting-timeout", "120",
        "--b2t", "name == 'layers.1:output'", "--t2b", "name == 'layers.0:output'",
    ]  # fmt: skip
    command = [sys.executable, "-m", "twinrun", "run"]
    first = subprocess.Popen(
        [*command, "--out", "a", "--graft-role", "baseline", *common, "--", sys.executable, "dying.py"],
        cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    second = twinrun(
        "run", "--out", "b", "--graft-role", "target", *common, *(["--strict"] if strict else []),
        "--", sys.executable, "program.py", cwd=tmp_path,
    )  # fmt: skip
    assert first.wait(60) == 128 + 9
    assert "baseline rank 0 died" in second.stderr
    if strict:
        # The partner may die before what it gave in its first step has come.
        assert second.returncode == 1 and len(sums(second.stdout)) < 2
    else:
        assert (second.returncode, len(sums(second.stdout))) == (3, 2)


def test_an_interrupt_leaves_no_process_behind(program: str, tmp_path: Path) -> None:
    """Ctrl-C ends both programs and everything that they started, torchrun's workers too."""
    words = [
        "graft",
        "--baseline",
        f"{program} linger",
        "--target",
        program.replace(
            sys.executable, f"{sys.executable} -m torch.distributed.run --nproc-per-node 2"
        )
        + " linger",
        "--b2t",
        "name == 'layers.0:output'",
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "twinrun", *words], cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("received"):
            break
    os.kill(running.pid, signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    left = subprocess.run(
        ["pgrep", "-f", str(tmp_path / "program.py")], capture_output=True, text=True, check=False
    )
    until = time.monotonic() + 5
    while left.stdout and time.monotonic() < until:
        time.sleep(0.2)
        left = subprocess.run(
            ["pgrep", "-f", str(tmp_path / "program.py")],
            capture_output=True,
            text=True,
            check=False,
        )
    assert left.stdout == ""


def test_a_program_that_dies_leaves_the_other_whole(program: str, tmp_path: Path) -> None:
    """A killed baseline ends the graft by name; the target goes on to its own end."""
    dying = tmp_path / "dying.py"
    head, tail = textwrap.dedent(PROGRAM).split("for step in range(2):")
    body = tail.replace(
        "out = net(",
        "step and __import__('os').kill(__import__('os').getpid(), 9)\n        out = net(",
    )
    dying.write_text(f"{head}for step in range(2):{body}")
    done = twinrun(
        "graft", "--baseline", f"{sys.executable} {dying}", "--target", program, "--b2t", "name == 'layers.1:output'",
        cwd=tmp_path,
    )  # fmt: skip
    assert "the baseline ended with signal SIGKILL" in done.stderr
    ends = ("baseline rank 0 died", "the baseline has ended and none of its ranks ever came")
    assert any(end in done.stderr for end in ends)
    assert len(sums(done.stdout)) == 3
    assert done.returncode == 128 + 9
