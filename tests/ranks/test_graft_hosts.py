"""Two hosts: a graft between two network namespaces that TUN devices join."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(240)]

SIDE = """
    import sys, torch, time
    import twinrun.grafting.exchange
    from twinrun.grafting.session import Session
    from twinrun.grafting.site import Site
    from twinrun.grafting.settings import Settings

    role = sys.argv[1]
    torch.set_num_threads(1)
    session = Session(Settings(role=role, address="10.77.0.1:29791", b2t="name == 'x'", t2b="name == 'y'", timeout_s=60, meeting_timeout_s=100))
    for step in range(3):
        big = torch.arange(700_000, dtype=torch.float32) * (step + 1)
        mine = big if role == "baseline" else torch.zeros(700_000)
        replaced, x = session.pass_through(Site("x", step), mine)
        assert torch.equal(x, big)
        replaced, y = session.pass_through(Site("y", step), torch.full((3,), float(role == "target")))
        assert y.tolist() == [1.0] * 3
    told = [peer.channel for peer in session.source.roster.peers.values()]
    session.close()
    assert not session.ended, session.ended
    print(role, told)
"""

DRIVER = """
    # Runs as root of a user and network namespace of its own: the first "host". A TUN device on each
    # side and this relay between them are the wire; veth would do, where the kernel has it.
    import ctypes, fcntl, os, selectors, struct, subprocess, sys

    def tun(name, address):
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))
        for words in (f"addr add {address}/24 dev {name}", f"link set {name} up", "link set lo up"):
            subprocess.run(["ip", *words.split()], check=True)
        return fd

    fds = [tun("here", "10.77.0.1")]
    sides = [subprocess.Popen([sys.executable, "side.py", "baseline"])]
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError(ctypes.get_errno(), "unshare")
    fds.append(tun("there", "10.77.0.2"))
    sides.append(subprocess.Popen([sys.executable, "side.py", "target"]))
    waiting = selectors.DefaultSelector()
    for at, fd in enumerate(fds):
        waiting.register(fd, selectors.EVENT_READ, fds[1 - at])
    while any(side.poll() is None for side in sides):
        for key, _ in waiting.select(0.2):
            os.write(key.data, os.read(key.fd, 65536))
    sys.exit(max(side.returncode for side in sides))
"""


def why_not() -> str:
    """Why this machine cannot hold two network namespaces; empty where it can."""
    for tool in ("ip", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    done = subprocess.run(
        ["unshare", "-Urn", "ip", "tuntap", "add", "probe", "mode", "tun"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else f"no network namespaces here: {done.stderr.strip()}"


def test_two_hosts_graft_over_tcp(tmp_path: Path) -> None:
    """Processes that share no abstract sockets meet at an address and send over TCP, both ways."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    (tmp_path / "side.py").write_text(textwrap.dedent(SIDE))
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "driver.py"], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "baseline ['tcp (the two processes are on different hosts)']" in done.stdout
    assert "target ['tcp (the two processes are on different hosts)']" in done.stdout
