"""Where other processes reach this one: an abstract Unix socket on this host, TCP from others."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from twinrun.errors import PeerError
from twinrun.grafting.ring import supported
from twinrun.grafting.wire import Header, field


class Unreachable(PeerError):
    """A process has come to the meeting and cannot be connected to."""


def host_identity() -> str:
    """Equal for processes that can reach each other's abstract sockets: one kernel, one network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/net').readlink()}/{os.getuid()}"


@dataclass
class Endpoint:
    """This process's listening sockets, which it owns."""

    local: socket.socket
    remote: socket.socket
    record: Header

    @classmethod
    def open(cls, meeting_host: str, meeting_port: int) -> Endpoint:
        """Listen on this host, and on the interface that leads to the meeting's host."""
        local = socket.socket(socket.AF_UNIX)
        name = f"twinrun-graft-{secrets.token_hex(12)}"
        local.bind("\0" + name)
        local.listen(256)
        remote = _listen(meeting_host, meeting_port)
        address = remote.getsockname()
        return cls(
            local, remote, {"host": host_identity(), "unix": name, "tcp": [address[0], address[1]]}
        )

    def close(self) -> None:
        self.local.close()
        self.remote.close()


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # Connecting a datagram socket sends nothing: it only asks the kernel which interface leads there.
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(address)
        except OSError as error:
            raise PeerError(f"no route to {host}: {error}", do="check --graft-address") from None
        mine = probe.getsockname()[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.bind((mine, 0))
    listening.listen(256)
    return listening


def connect(
    record: Header, mine: Header, who: str, seconds: float = 30.0
) -> tuple[socket.socket, bool]:
    """A connection to the process behind ``record``, and whether it is on this host; PeerError."""
    local = field(record, "host", str, who) == mine["host"]
    try:
        if local:
            connected = socket.socket(socket.AF_UNIX)
            connected.settimeout(seconds)
            connected.connect("\0" + field(record, "unix", str, who))
        else:
            host, port = field(record, "tcp", list, who)
            connected = socket.create_connection((str(host), int(port)), timeout=seconds)
    except (OSError, ValueError) as error:
        raise Unreachable(f"{who} has come to the meeting but cannot be reached: {error}") from None
    connected.settimeout(None)
    return connected, local


def rings(local: bool) -> str | None:
    """None where a pair of processes can share rings, else the reason for TCP."""
    return supported() if local else "the two processes are on different hosts"
