"""Two nodes as two network namespaces with their own host names, torchrun across them on gloo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pytest

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

PROGRAM = """
import sys, torch, torch.distributed as dist
import twinrun as tr
from twinrun.env import variables as V

def main():
    rank, size = dist.get_rank(), dist.get_world_size()
    near = [dist.new_group([0, 1]), dist.new_group([2, 3])][rank // 2]
    with tr.AllReduce() as every, tr.AllReduce(near) as pair:
        x = torch.full((1000,), float(10 ** rank))
        told = [every.plan(x).backend, int(every(x)[-1]), pair.plan(x).backend, int(pair(x)[-1])]
        told += [V.SYMMETRIC_ALL_REDUCE.get(), V.SYMMETRIC_ALL_REDUCE.source().kind]
        nodes = len(set(every._line(x.device).facts.nodes))
        sys.stdout.write(f"RANK {rank} {told} nodes {nodes}\\n")

dist.init_process_group("gloo")
main()  # a group that is still a global at the end may abort its process there
dist.destroy_process_group()
"""


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"{missing[0]} is not installed (iproute2, util-linux)"
    tried = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, text=True)
    return f"namespaces are not allowed: {tried.stderr.strip()}" if tried.returncode else None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Node:
    """One of the two: its namespace, device, address and host name."""

    space: str
    device: str
    address: str

    def start(
        self, command: list[str], environ: dict[str, str], out: IO[str], err: IO[str]
    ) -> subprocess.Popen[str]:
        """Into files: a pipe that nobody empties would hold the other node up too."""
        named = f'hostname {self.space}; exec "$@"'
        line = ["ip", "netns", "exec", self.space, "unshare", "--uts", "sh", "-c", named, "sh"]
        return subprocess.Popen(
            [*line, *command],
            env={
                **os.environ,
                **environ,
                "GLOO_SOCKET_IFNAME": self.device,
                "TP_SOCKET_IFNAME": self.device,
                "OMP_NUM_THREADS": "1",
                "TWINRUN_LOG": "debug",
            },
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    reason = _why_not()
    if reason is not None:
        pytest.skip(reason)
    tag = f"{os.getpid() % 10000}"
    made = [Node(f"twa{tag}", f"va{tag}", "10.77.0.1"), Node(f"twb{tag}", f"vb{tag}", "10.77.0.2")]
    try:
        for node in made:
            _ip("netns", "add", node.space)
        _ip("link", "add", made[0].device, "type", "veth", "peer", "name", made[1].device)
        for node in made:
            _ip("link", "set", node.device, "netns", node.space)
            _ip("-n", node.space, "addr", "add", f"{node.address}/24", "dev", node.device)
            _ip("-n", node.space, "link", "set", node.device, "up")
            _ip("-n", node.space, "link", "set", "lo", "up")
        yield made
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed: {error.stderr.strip()}")
    finally:
        for node in made:
            subprocess.run(["ip", "netns", "del", node.space], capture_output=True)


def _both(nodes: list[Node], commands: list[list[str]], environ: dict[str, str]) -> tuple[str, str]:
    with ExitStack() as held:
        files = [[held.enter_context(TemporaryFile("w+")) for _ in ("out", "err")] for _ in nodes]
        started = [
            node.start(line, environ, *into)
            for node, line, into in zip(nodes, commands, files, strict=True)
        ]
        deadline = time.monotonic() + 150
        while any(each.poll() is None for each in started) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, 9)
        ended = [process.wait() for process in started]
        for each in chain(*files):
            each.seek(0)
        out, err = ("".join(pair[at].read() for pair in files) for at in (0, 1))
    assert ended == [0, 0], f"exit codes {ended}\n{out}\n{err}"
    return out, err


def _ranks(out: str) -> list[str]:
    return sorted(line for line in out.splitlines() if line.startswith("RANK"))


@pytest.mark.parametrize(("asked", "level"), [(None, "DEBUG"), ("1", "WARNING")])
def test_plain_torchrun_across_two_nodes(
    nodes: list[Node], tmp_path: Path, asked: str | None, level: str
) -> None:
    """Right sums over the library across nodes, in-node groups keep theirs, and one decision is logged."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    lines = [
        [
            sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}",
            "--nproc-per-node=2", f"--master-addr={nodes[0].address}", "--master-port=29531",
            str(program),
        ]
        for rank in range(2)
    ]  # fmt: skip
    environ = {} if asked is None else {"TWINRUN_SYMMETRIC_ALL_REDUCE": asked}
    out, err = _both(nodes, lines, environ)
    source = "default" if asked is None else "environment"
    pairs = [11, 11, 1100, 1100]
    assert _ranks(out) == [
        f"RANK {rank} ['gloo', 1111, 'shared_memory', {pairs[rank]}, True, '{source}'] nodes 2"
        for rank in range(4)
    ]
    decisions = [line for line in err.splitlines() if "launch.in_node_only" in line]
    assert len(decisions) == 1 and level in decisions[0] and "2 nodes" in decisions[0]
    assert "one node only" in decisions[0]


def test_twinrun_launch_across_two_nodes(nodes: list[Node], tmp_path: Path) -> None:
    """The launch decides for every process: children see 0 by rule, and no rank says it again."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    lines = [
        [
            sys.executable, "-m", "twinrun", "launch", "--nnodes", "2", "--node-rank", str(rank),
            "--nproc-per-node", "2", "--dist-init-addr", f"{nodes[0].address}:29532", "--",
            str(program),
        ]
        for rank in range(2)
    ]  # fmt: skip
    out, err = _both(nodes, lines, {})
    assert [line.count("False, 'rule'] nodes 2") for line in _ranks(out)] == [1, 1, 1, 1]
    decisions = [line for line in err.splitlines() if "launch.in_node_only" in line]
    assert len(decisions) == 2, "one a launch, none from the ranks"
