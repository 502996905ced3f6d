"""``HOST:PORT`` as text and back; IPv6 hosts in brackets."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:\[\]/@]+)):(?P<port>\d{1,5})")


def parse_address(text: str) -> tuple[str, int] | str:
    """Host and port of ``HOST:PORT`` or ``[IPV6]:PORT``, or what is wrong with it."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return f"{text!r} is no HOST:PORT"
    port = int(match["port"])
    if not 1 <= port <= 65535:
        return f"{text!r} has port {port}, which is not from 1 to 65535"
    return match["six"] or match["host"], port


def render_address(host: str, port: int) -> str:
    """The text of an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
