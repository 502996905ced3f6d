"""A resolved launch as torchrun's command line."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from twinrun.launch.args import LaunchArgs, Platform
from twinrun.launch.render import changed, command_line, shell_text
from twinrun.launch.rules import resolve


def _line(environ: dict[str, str] | None = None, **more: Any) -> list[str]:
    args = LaunchArgs(**{"command": ("train.py", "--lr", "1"), "nproc_per_node": 2, **more})
    return command_line(resolve(args, environ or {}, Platform(0)), "py")


def test_one_node_meets_itself() -> None:
    """One node takes a free port by itself, so that two launches never collide."""
    assert _line() == [
        "py", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "train.py", "--lr", "1",
    ]  # fmt: skip


def test_several_nodes_meet_at_the_address() -> None:
    """Nodes, node rank and address are passed on; each node keeps its own place."""
    line = _line(
        nnodes=2, node_rank=1, dist_init_addr="[::1]:29500", rendezvous_timeout_s=60, max_restarts=3
    )
    assert line[3:9] == [
        "--nnodes=2", "--node-rank=1", "--master-addr=::1", "--master-port=29500",
        "--rdzv-conf=timeout=60", "--nproc-per-node=2",
    ]  # fmt: skip
    assert "--max-restarts=3" in line


@pytest.mark.parametrize(
    ("command", "tail"),
    [
        (("a/train.py", "x"), ["a/train.py", "x"]),
        (("-m", "pkg.train", "x"), ["-m", "pkg.train", "x"]),
        (("/envs/x/bin/python", "train.py"), ["--no-python", "/envs/x/bin/python", "train.py"]),
        (("serve",), ["--no-python", "serve"]),
    ],
)
def test_scripts_modules_and_programs(command: tuple[str, ...], tail: list[str]) -> None:
    """A script or module runs under torchrun's Python, anything else as it is."""
    assert _line(command=command)[-len(tail) :] == tail


def test_the_dry_run_shows_what_changed_ready_to_paste() -> None:
    """Only variables that the launch sets or changes, quoted for a shell."""
    environ = {"PATH": "/bin", "TWINRUN_DETERMINISTIC": "1"}
    args = LaunchArgs(command=("train.py", "a b"), nproc_per_node=2, order="tree")
    resolved = resolve(args, environ, Platform(0))
    shown = changed(resolved, environ)
    assert shown["TWINRUN_ALL_REDUCE_ORDER"] == "tree" and "PATH" not in shown
    words = shlex.split(shell_text(resolved, environ, "py"))
    assert words[-2:] == ["train.py", "a b"] and "TWINRUN_ALL_REDUCE_ORDER=tree" in words
