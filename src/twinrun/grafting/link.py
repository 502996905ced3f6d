"""The control connection of two processes: framed JSON, a token first, descriptors on one host."""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from twinrun.errors import PeerError
from twinrun.grafting.wire import (
    MAX_GREETING_BYTES,
    MAX_HEADER_BYTES,
    PREFIX,
    Header,
    decode_header,
    decode_prefix,
    encode,
    field,
)

_FDS = 8
_SEND_BUFFER_BYTES = 4 << 20


class HungUp(PeerError):
    """The other end closed the connection."""


class Link:
    """One end of a control connection. ``send`` from any thread, ``receive`` from one.

    Until ``trusted`` is set a peer may send little, and no descriptors. Owns its socket.
    """

    def __init__(self, connected: socket.socket, who: str) -> None:
        self.socket = connected
        self.who = who
        self.trusted = False
        self._received = bytearray()
        self._fds: deque[int] = deque()
        self._lock = threading.Lock()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, header: Mapping[str, Any], fd: int | None = None) -> None:
        """Send one frame (and a descriptor, on one host); PeerError when the peer has gone."""
        frame = encode(header)
        try:
            with self._lock:
                sent = 0
                if fd is not None:
                    sent = socket.send_fds(self.socket, [frame], [fd])
                self.socket.sendall(frame[sent:])
        except TimeoutError as error:
            raise PeerError(f"{self.who} does not listen: {error}") from None
        except OSError as error:
            raise HungUp(f"{self.who} cannot be told: {error}") from None

    def receive(self) -> list[Header] | None:
        """The frames that have arrived; None once the peer has gone. Call when the socket is readable."""
        try:
            chunk = self._chunk()
        except OSError:
            chunk = b""
        if not chunk:
            return None
        self._received += chunk
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def take_fd(self) -> int:
        """The descriptor that came with the frame just received; the caller owns it."""
        if not self._fds:
            raise PeerError(f"{self.who} announced a descriptor and sent none")
        return self._fds.popleft()

    def close(self) -> None:
        """Close the connection and every descriptor that nobody took."""
        while self._fds:
            os.close(self._fds.popleft())
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _chunk(self) -> bytes:
        if self.socket.family != socket.AF_UNIX or not self.trusted:
            return self.socket.recv(1 << 16)
        chunk, fds, flags, _ = socket.recv_fds(self.socket, 1 << 16, _FDS, socket.MSG_CMSG_CLOEXEC)
        self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC:
            raise OSError("descriptors were cut off")
        return chunk

    def _next(self) -> Header | None:
        if len(self._received) < PREFIX.size:
            return None
        limit = MAX_HEADER_BYTES if self.trusted else MAX_GREETING_BYTES
        size, payload = decode_prefix(bytes(self._received[: PREFIX.size]), self.who, limit)
        if payload:
            raise PeerError(f"{self.who} sent a payload on a control connection")
        end = PREFIX.size + size
        if len(self._received) < end:
            return None
        header = decode_header(bytes(self._received[PREFIX.size : end]), self.who)
        del self._received[:end]
        return header


def receive_one(link: Link, seconds: float) -> Header:
    """Wait for exactly one frame and read not a byte more; PeerError when none comes."""
    link.socket.settimeout(seconds)
    try:
        prefix = _exactly(link, PREFIX.size)
        size, payload = decode_prefix(prefix, link.who, MAX_GREETING_BYTES)
        if payload:
            raise PeerError(f"{link.who} sent a payload on a control connection")
        return decode_header(_exactly(link, size), link.who)
    except ConnectionError as error:
        raise HungUp(f"{link.who} hung up: {error}") from None
    except OSError as error:
        raise PeerError(f"{link.who} did not answer: {error or 'timed out'}") from None
    finally:
        link.socket.settimeout(None)


def _exactly(link: Link, nbytes: int) -> bytes:
    received = b""
    while len(received) < nbytes:
        chunk = link.socket.recv(nbytes - len(received))
        if not chunk:
            raise HungUp(f"{link.who} hung up")
        received += chunk
    return received


def check_token(header: Mapping[str, Any], token: str, who: str) -> None:
    """PeerError unless the greeting shows the token of this graft."""
    shown = field(header, "token", str, who)
    if not hmac.compare_digest(shown.encode("utf-8", "replace"), token.encode()):
        raise PeerError(
            f"{who} does not know the token of this graft", do="it belongs to another one"
        )


def same_user(connected: socket.socket) -> bool:
    """Whether the other end of a Unix socket runs as this user (or as root)."""
    return _credentials(connected)[1] in (os.getuid(), 0)


def process_of(connected: socket.socket) -> int:
    """The process at the other end of a Unix socket, by the kernel's word; 0 where it is not visible here."""
    return _credentials(connected)[0] if connected.family == socket.AF_UNIX else 0


def _credentials(connected: socket.socket) -> tuple[int, int]:
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", raw)
    return int(pid), int(uid)
