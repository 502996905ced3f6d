"""Where the two jobs find each other: a TCPStore on a socket of our own, for set-up only."""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol

from twinrun.errors import PeerError
from twinrun.grafting.settings import Settings
from twinrun.grafting.wire import PROTOCOL, Header, decode_header

_GREETING = "twinrun/graft"
_RETRY_S = 0.1
_ANSWER_S = 10.0
_CONNECT_S = 3.0
"""torch tries again by itself within this time, and about twice as long where nobody listens any more."""
_TRIES = 4
"""How often in a row who listens there may not answer as a store before it cannot be a graft."""


class Store(Protocol):
    """The part of ``torch.distributed.TCPStore`` that is used."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def add(self, key: str, amount: int) -> int: ...

    def check(self, keys: list[str]) -> bool: ...


class Meeting:
    """The store of one graft. The first process that can bind HOST:PORT serves it."""

    def __init__(self, store: Store, token: str, *, serves: bool) -> None:
        self._store = store
        self.token = token
        self.serves = serves

    @classmethod
    def open(cls, settings: Settings, stop: Callable[[], None]) -> Meeting:
        """Serve the meeting or reach it, until the meeting timeout; PeerError, UsageError.

        ``stop`` is called while waiting and raises to give up.
        """
        host, port = settings.host, settings.port
        began = time.monotonic()
        refused = 0
        while True:
            listening = _bind(host, port)
            if listening is not None:
                return cls._serve(listening, host, settings)
            if _reachable(host, port):
                found = _store_at(host, port, settings.address)
                if found is not None:
                    return cls._visit(*found, settings)
                # Whoever served there may have died meanwhile, and another one come.
                refused += 1
                if refused == _TRIES:
                    raise _foreign(settings.address)
            else:
                refused = 0
            stop()
            if time.monotonic() - began > settings.meeting_timeout_s:
                raise PeerError(
                    f"nobody serves the meeting at {settings.address}",
                    seen=f"no connection for {settings.meeting_timeout_s:g} s",
                    expected="the job that runs on that host to have started",
                    do="check --graft-address on both sides, and that nothing blocks the port",
                )
            time.sleep(_RETRY_S)

    @classmethod
    def _serve(cls, listening: socket.socket, host: str, settings: Settings) -> Meeting:
        from torch._C._distributed_c10d import TCPStore

        port = listening.getsockname()[1]
        store = TCPStore(
            host,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=settings.meeting_timeout_s),
            master_listen_fd=listening.detach(),
        )
        token = settings.token or secrets.token_hex(16)
        greeting = {
            "protocol": PROTOCOL,
            "token": "" if settings.token else token,
            "digest": _digest(token),
        }
        store.set(_GREETING, json.dumps(greeting))
        return cls(store, token, serves=True)

    @classmethod
    def _visit(cls, store: Any, text: bytes, settings: Settings) -> Meeting:
        greeting = decode_header(text, settings.address)
        store.set_timeout(timedelta(seconds=settings.meeting_timeout_s))
        return cls(store, _token(greeting, settings), serves=False)

    def join(self, record: Mapping[str, Any]) -> list[Header]:
        """Put ``record`` on the list; the records of all who came before, in order."""
        mine = self._store.add(f"{_GREETING}/count", 1) - 1
        self._store.set(f"{_GREETING}/{mine}", json.dumps(record))
        return [
            decode_header(self._store.get(f"{_GREETING}/{n}"), f"visitor {n}") for n in range(mine)
        ]


def _store_at(host: str, port: int, address: str) -> tuple[Any, bytes] | None:
    """The store that listens there and its greeting; None where none answers. PeerError: it is no graft's."""
    from torch._C._distributed_c10d import TCPStore

    until = time.monotonic() + _ANSWER_S
    try:
        store = TCPStore(host, port, wait_for_workers=False, timeout=timedelta(seconds=_CONNECT_S))
        store.set_timeout(timedelta(seconds=_ANSWER_S))
        while not store.check([_GREETING]):
            if time.monotonic() > until:
                raise _foreign(address)
            time.sleep(_RETRY_S)
        return store, store.get(_GREETING)
    except (RuntimeError, OSError):
        return None


def _foreign(address: str) -> PeerError:
    return PeerError(
        f"{address} is in use, and not by a Twinrun graft",
        do="give both sides another --graft-address",
    )


def _token(greeting: Header, settings: Settings) -> str:
    if greeting.get("protocol") != PROTOCOL:
        raise PeerError(
            "the other side speaks another version of the graft protocol",
            seen=f"protocol {greeting.get('protocol')!r}",
            expected=f"protocol {PROTOCOL}",
            do="run the same release of Twinrun on both sides",
        )
    token = settings.token or greeting.get("token")
    if not isinstance(token, str) or not token or greeting.get("digest") != _digest(token):
        raise PeerError(
            f"the graft at {settings.address} has another token",
            do="two grafts share one address: give each its own --graft-address",
        )
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _bind(host: str, port: int) -> socket.socket | None:
    """A listening socket at HOST:PORT, or None where the port is taken or the host is another one."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            return None
        raise PeerError(
            f"cannot listen on {host}:{port}: {error}", do="give another --graft-address"
        ) from None
    return listening


def _reachable(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_ANSWER_S).close()
    except OSError:
        return False
    return True
