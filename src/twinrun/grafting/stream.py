"""A byte pipe between two hosts: one direction of a TCP connection."""

from __future__ import annotations

import ctypes
import socket

from twinrun.errors import PeerError

_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype = ctypes.py_object
_view.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_READ, _WRITE = 0x100, 0x200


class Stream:
    """Bytes over a connected TCP socket, which it owns; neither call ever blocks."""

    kind = "tcp"

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected

    def write(self, address: int, nbytes: int) -> int:
        """Send up to ``nbytes`` from ``address``; how many went out (0: the peer is not reading)."""
        try:
            return self._socket.send(_view(address, nbytes, _READ))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PeerError(f"the data connection broke: {error}") from None

    def withdraw(self) -> int:
        """Nothing is ever lent here: what ``write`` took has gone."""
        return 0

    def read(self, address: int, nbytes: int) -> int:
        """Receive up to ``nbytes`` to ``address``; how many came (0: nothing has arrived)."""
        try:
            count = self._socket.recv_into(_view(address, nbytes, _WRITE), nbytes)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PeerError(f"the data connection broke: {error}") from None
        if count == 0:
            raise PeerError("the peer closed the data connection")
        return count

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
