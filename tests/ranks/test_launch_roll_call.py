"""``twinrun launch`` on "nodes" of one host whose ranks were given by hand, wrongly and rightly."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.ranks


def _start(port: int, nodes: int, rank: int) -> subprocess.Popen[str]:
    told = [f"--nnodes={nodes}", f"--node-rank={rank}", f"--dist-init-addr=127.0.0.1:{port}"]
    line = ["-m", "twinrun", "launch", *told, "--nproc-per-node=1", "--", "true"]
    return subprocess.Popen(
        [sys.executable, *line],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TWINRUN_LOG": "warning"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _run(nodes: int, ranks: list[int]) -> list[tuple[int, str]]:
    """Exit code and what was printed of each node."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    started = [_start(port, nodes, rank) for rank in ranks]
    try:
        told = [each.communicate(timeout=90)[1] for each in started]
    finally:
        for each in started:
            if each.poll() is None:
                os.killpg(each.pid, 9)
    return [(each.returncode, text) for each, text in zip(started, told, strict=True)]


def test_two_nodes_of_one_rank_are_named_by_every_node() -> None:
    """torchrun would wait for the missing rank; all three end at once, and say why."""
    for code, told in _run(3, [0, 1, 1]):
        assert code != 0
        assert "node rank 1 is claimed by" in told and socket.gethostname() in told, told


def test_nodes_of_different_ranks_go_on() -> None:
    """The roll call is not in the way of a launch that fits together."""
    for code, told in _run(2, [0, 1]):
        assert code == 0 and "claimed" not in told, told
