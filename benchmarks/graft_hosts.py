"""What a graft costs between two hosts, beside one plain gloo send and receive in the same run.

The hosts are two network namespaces that a veth pair joins; no privileges are needed where the system
lets users make namespaces. A round is one gloo send and receive and one graft of the same tensor, each
after both sides have met; the receiver's time counts.

    python benchmarks/graft_hosts.py [--mib 64] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

MIB = 1 << 20
ADDRESSES = {"baseline": "10.78.0.1", "target": "10.78.0.2"}
DEVICES = {"baseline": "twin-b", "target": "twin-t"}
GRAFT_PORT, GLOO_PORT = 29791, 29792


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _drive(given: argparse.Namespace) -> int:
    """As root of a user and a network namespace of its own: the baseline's host."""
    _ip("link", "add", "name", DEVICES["baseline"], "type", "veth", "peer", "name", DEVICES["target"])  # fmt: skip
    here = [sys.executable, __file__, "--mib", str(given.mib), "--rounds", str(given.rounds)]
    more = ["--json", str(given.json)] if given.json else []
    target = subprocess.Popen(
        ["unshare", "-n", *here, *more, "--inside", "target"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert target.stdin is not None and target.stdout is not None
    target.stdout.readline()  # it stands in its own namespace now
    _ip("link", "set", DEVICES["target"], "netns", str(target.pid))
    target.stdin.write("\n")
    target.stdin.flush()
    baseline = subprocess.Popen([*here, "--inside", "baseline"])
    print(target.stdout.read(), end="")
    return max(target.wait(), baseline.wait())


def _side(role: str, given: argparse.Namespace) -> None:
    if role == "target":
        print("here", flush=True)
        sys.stdin.readline()
    device = DEVICES[role]
    _ip("addr", "add", f"{ADDRESSES[role]}/24", "dev", device)
    _ip("link", "set", device, "up")
    _ip("link", "set", "lo", "up")
    os.environ["GLOO_SOCKET_IFNAME"] = device
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    gloo, graft, channel = _rounds(role, given)
    if role == "baseline":
        return
    row = {
        "case": "1 -> 1, two hosts",
        "bytes": given.mib * MIB,
        "graft_ms": statistics.median(graft) * 1e3,
        "gloo_ms": statistics.median(gloo) * 1e3,
        "best_graft_ms": min(graft) * 1e3,
        "best_gloo_ms": min(gloo) * 1e3,
        "channel": channel,
    }
    ratio = row["graft_ms"] / row["gloo_ms"]
    print(
        f"{row['case']}   {row['bytes']} B   graft {row['graft_ms']:.2f} ms   "
        f"gloo send and receive {row['gloo_ms']:.2f} ms   ratio {ratio:.2f}   "
        f"best {row['best_graft_ms']:.2f} / {row['best_gloo_ms']:.2f} ms   {channel}"
    )
    if given.json:
        facts = {
            "command": f"python benchmarks/graft_hosts.py --mib {given.mib} --rounds {given.rounds}",
            "machine": platform.processor() or platform.machine(),
            "processors": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "wire": "veth between two network namespaces",
            "rows": [row],
        }
        given.json.write_text(json.dumps(facts, indent=1) + "\n")


def _rounds(role: str, given: argparse.Namespace) -> tuple[list[float], list[float], str]:
    """Seconds of each round but the first three: gloo's, ours; and the graft's channel."""
    import torch.distributed as dist

    from twinrun.grafting.session import Session
    from twinrun.grafting.settings import Settings
    from twinrun.grafting.site import Site

    host, sends = ADDRESSES["baseline"], role == "baseline"
    # No default group: each side is a job of one rank.
    store = dist.TCPStore(host, GLOO_PORT, 2, is_master=sends)
    group = dist.ProcessGroupGloo(store, int(not sends), 2, timedelta(seconds=120))
    os.environ.update({"RANK": "0", "WORLD_SIZE": "1"})
    session = Session(
        Settings(
            role=role, address=f"{host}:{GRAFT_PORT}", b2t="name == 'x'", t2b="name == 'ready'",
            log="brief", timeout_s=120, meeting_timeout_s=120,
        )
    )  # fmt: skip
    right = torch.arange(given.mib * MIB // 4, dtype=torch.float32)
    x = right if sends else torch.zeros_like(right)
    ready, into = torch.zeros(1), torch.zeros_like(right)
    gloo, graft = [], []
    for step in range(given.rounds + 3):
        group.barrier().wait()
        began = time.perf_counter()
        (group.send([right], 1, 0) if sends else group.recv([into], 0, 0)).wait()
        gloo.append(time.perf_counter() - began)
        session.begin(step)
        y: Any = None  # a program lets go of a layer's value before the next step brings another
        session.pass_through(Site("ready", step), ready)
        began = time.perf_counter()
        _, y = session.pass_through(Site("x", step), x)
        graft.append(time.perf_counter() - began)
        if step == 0:
            assert torch.equal(y, right) and torch.equal(into if not sends else right, right)
    channel = ", ".join(peer.channel for peer in session.source.roster.peers.values())  # type: ignore[attr-defined]
    session.close()
    return gloo[3:], graft[3:], channel


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", choices=["driver", *ADDRESSES], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside == "driver":
        return _drive(given)
    if given.inside:
        _side(given.inside, given)
        return 0
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        raise SystemExit(f"{missing[0]} is not installed: no network namespaces can be made")
    words = ["unshare", "-Urn", sys.executable, __file__, *sys.argv[1:], "--inside", "driver"]
    return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
