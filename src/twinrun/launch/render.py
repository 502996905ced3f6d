"""A resolved launch as torchrun's command line. The engine, rendezvous and restarts are torchrun's."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping

from twinrun.launch.address import parse_address
from twinrun.launch.args import LaunchArgs
from twinrun.launch.decision import Resolved


def command_line(resolved: Resolved, python: str = sys.executable) -> list[str]:
    """The command that starts this node's ranks."""
    args = resolved.args
    return [
        python,
        "-m",
        "torch.distributed.run",
        *_meeting(args),
        f"--nproc-per-node={args.ranks_per_node}",
        *([f"--max-restarts={args.max_restarts}"] if args.max_restarts else []),
        *_program(args.command),
    ]


def _meeting(args: LaunchArgs) -> list[str]:
    """One node meets itself on a free port; several meet at the address, each in its own place."""
    if args.dist_init_addr is None:
        return ["--standalone"]
    host, port = _address(args.dist_init_addr)
    conf = args.rendezvous_timeout_s
    return [
        f"--nnodes={args.nodes}",
        f"--node-rank={args.node_rank or 0}",
        f"--master-addr={host}",
        f"--master-port={port}",
        *([f"--rdzv-conf=timeout={conf:g}"] if conf is not None else []),
    ]


def _address(text: str) -> tuple[str, int]:
    found = parse_address(text)
    assert not isinstance(found, str), found  # launch.arguments has checked it
    return found


def _program(command: tuple[str, ...]) -> list[str]:
    """A script or module runs under torchrun's Python; anything else is started as it is."""
    first = command[0]
    if first.endswith(".py"):
        return list(command)
    if first == "-m" and len(command) > 1:
        return ["-m", *command[1:]]
    return ["--no-python", *command]


def changed(resolved: Resolved, before: Mapping[str, str]) -> dict[str, str]:
    """The variables that the launch sets or changes, by name."""
    after = resolved.environment
    return {name: after[name] for name in sorted(after) if before.get(name) != after[name]}


def shell_text(resolved: Resolved, before: Mapping[str, str], python: str = sys.executable) -> str:
    """The launch as one line for a shell: the changed environment, then the command."""
    pairs = [f"{name}={shlex.quote(value)}" for name, value in changed(resolved, before).items()]
    return " ".join([*pairs, shlex.join(command_line(resolved, python))])
