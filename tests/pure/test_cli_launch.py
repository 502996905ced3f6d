"""twinrun launch, env and doctor as commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TWINRUN = [sys.executable, "-m", "twinrun"]


def _run(*words: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TWINRUN_")}
    return subprocess.run(
        [*TWINRUN, *words], capture_output=True, text=True, env={**clean, **environ}, cwd=cwd
    )


def test_a_dry_run_starts_nothing_and_imports_no_torch(tmp_path: Path) -> None:
    """--dry-run prints command, environment and decisions; torch is never imported for it."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    told = _run(
        "launch", "--nnodes", "2", "--node-rank", "1", "--dist-init-addr", "a:1", "--nproc-per-node",
        "4", "--dry-run", "--", "train.py", "--lr", "1",
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    for word in (
        "node 1 of 2, 4 ranks on it", "launch.in_node_only: TWINRUN_SYMMETRIC_ALL_REDUCE is set to 0",
        "TWINRUN_SYMMETRIC_ALL_REDUCE=0   launch rule", "--master-addr=a", "train.py --lr 1",
    ):  # fmt: skip
        assert word in told.stdout


def test_a_refusal_exits_2_with_every_problem() -> None:
    """Errors go to stderr, with exit code 2."""
    told = _run("launch", "--nnodes", "2", "--tp", "3", "--", "x.py")
    assert told.returncode == 2 and "3 problems" in told.stderr and told.stdout == ""


@pytest.mark.parametrize("command", [["nowhere.py"], ["no-such-program"]])
def test_a_command_that_is_not_there(command: list[str], tmp_path: Path) -> None:
    """A missing command is said before any rank is started."""
    told = _run("launch", "--", *command, cwd=tmp_path)
    assert told.returncode == 2 and f"{command[0]!r} was not found" in told.stderr


def test_only_warnings_are_printed_unless_more_is_asked_for(tmp_path: Path) -> None:
    """A user who had set the variable on is warned; TWINRUN_LOG=debug shows the rest."""
    words = [
        "launch",
        "--nnodes",
        "2",
        "--node-rank",
        "0",
        "--dist-init-addr",
        "a:1",
        "--",
        "no.py",
    ]
    quiet = _run(*words, cwd=tmp_path)
    warned = _run(*words, cwd=tmp_path, TWINRUN_SYMMETRIC_ALL_REDUCE="1")
    full = _run(*words, cwd=tmp_path, TWINRUN_LOG="debug")
    assert "in_node_only" not in quiet.stderr
    assert "warning launch.in_node_only: you set TWINRUN_SYMMETRIC_ALL_REDUCE on" in warned.stderr
    assert "debug launch.in_node_only" in full.stderr


@pytest.mark.ranks
def test_the_ranks_run_and_their_code_comes_back(tmp_path: Path) -> None:
    """Ranks see the settled environment; the launch ends with torchrun's code."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "sys.stdout.write('RANK %s ORDER %s\\n' % (os.environ['RANK'], os.environ['TWINRUN_ALL_REDUCE_ORDER']))\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    words = ["launch", "--nproc-per-node", "2", "--order", "tree", "--", str(program)]
    good, bad = _run(*words, "0"), _run(*words, "3")
    assert good.returncode == 0 and bad.returncode != 0
    assert sorted(line for line in good.stdout.splitlines() if line.startswith("RANK")) == [
        "RANK 0 ORDER tree", "RANK 1 ORDER tree",
    ]  # fmt: skip


@pytest.mark.parametrize(("mode", "code"), [("values", 2), ("stats", 0)])
def test_a_capture_around_the_launch_is_known(tmp_path: Path, mode: str, code: int) -> None:
    """Under twinrun run the mode of its capture is held against --cuda-graph; a broken one is not ours."""
    (tmp_path / "run.json").write_text(json.dumps({"options": {"mode": mode}}))
    words = ["launch", "--cuda-graph", "--dry-run", "--", "x.py"]
    told = _run(*words, TWINRUN_OUT=str(tmp_path))
    assert told.returncode == code and ("--mode values" in told.stderr) is (code == 2)
    (tmp_path / "run.json").write_text("[1")
    assert _run(*words, TWINRUN_OUT=str(tmp_path)).returncode == 0


def test_env_prints_values_and_sources() -> None:
    """Each variable with its value and where it came from; problems last, with exit code 2."""
    told = _run("env", TWINRUN_DETERMINISTIC="on")
    row = next(line for line in told.stdout.splitlines() if "TWINRUN_DETERMINISTIC" in line)
    assert told.returncode == 0 and "on" in row and "environment" in row
    wrong = _run("env", TWINRUN_DETERMINISTC="on", TWINRUN_NNODES="none")
    assert wrong.returncode == 2
    assert (
        "did you mean TWINRUN_DETERMINISTIC?" in wrong.stdout and "TWINRUN_NNODES" in wrong.stdout
    )


def test_doctor_describes_a_cluster_without_torch(tmp_path: Path) -> None:
    """The described case needs no torch, and prints what is off, what is chosen and what to change."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    told = _run(
        "doctor", "--nnodes", "2", "--nproc-per-node", "4", "--bytes", "96KiB", "--dtype", "bf16",
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    for word in (
        "group of 8 ranks on 2 nodes", "off: the job spans 2 nodes", "rule launch.in_node_only",
        "nccl", "CHOSEN for 96 KiB bf16", "decided by", "to change", "--keep-in-node-all-reduce",
    ):  # fmt: skip
        assert word in told.stdout


def test_doctor_without_torch_says_so_and_goes_on(tmp_path: Path) -> None:
    """A missing torch is a fact of this machine, not a crash."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    told = _run("doctor", PYTHONPATH=str(tmp_path))
    assert told.returncode == 0 and "found" in told.stdout, told.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bytes", "96KB"], "is no size"),
        (["--dtype", "bf17"], "is unknown"),
        (["--nnodes", "2", "--tp", "3"], "does not divide"),
        (["--deterministic", "--order", "any"], "cannot go with"),
    ],
)
def test_doctor_refuses_what_cannot_be(words: list[str], said: str) -> None:
    """A cluster that a launch would refuse is refused alike."""
    told = _run("doctor", *words)
    assert told.returncode == 2 and said in told.stderr


def test_doctor_lists_the_conflicts() -> None:
    """Every row of the table, with its way out."""
    told = _run("doctor", "--conflicts").stdout
    assert "--deterministic cannot go with --order any" in told and "do " in told
