"""Frames on the wire: a fixed prefix, a JSON header, raw payload bytes. Nothing is ever unpickled."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from twinrun.errors import PeerError

MAGIC = b"twinrun\0"
PROTOCOL = 1
PREFIX = struct.Struct("<8sHxxIQ")
"""magic, protocol version, bytes of the header, bytes of the payload"""

MAX_HEADER_BYTES = 16 << 20
MAX_GREETING_BYTES = 64 << 10
"""What a stranger may send before it has shown the token."""

Header: TypeAlias = dict[str, Any]

_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def encode(header: Mapping[str, Any], payload_bytes: int = 0) -> bytes:
    """Prefix and header of one frame, to be followed by exactly ``payload_bytes`` raw bytes.

    Raises PeerError for a header that is larger than any reader takes.
    """
    return frame(json_text(header), payload_bytes)


def json_text(header: Mapping[str, Any]) -> str:
    """A header as JSON, as ``frame`` takes it."""
    return _encoder.encode(header)


def frame(header: str, payload_bytes: int) -> bytes:
    """As ``encode``, of a header that is JSON already."""
    text = header.encode("utf-8", "surrogatepass")
    if len(text) > MAX_HEADER_BYTES:
        raise PeerError(
            f"a graft message needs {len(text)} bytes of header, more than {MAX_HEADER_BYTES}",
            do="send large values as tensors in extras, not as lists of numbers",
        )
    return PREFIX.pack(MAGIC, PROTOCOL, len(text), payload_bytes) + text


def decode_prefix(
    prefix: bytes, who: str = "the peer", limit: int = MAX_HEADER_BYTES
) -> tuple[int, int]:
    """(bytes of the header, bytes of the payload) of a frame that begins with ``prefix``.

    Raises PeerError that tells another project, another protocol version and a header that is
    too large apart; ``who`` names the sender.
    """
    magic, protocol, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise PeerError(
            f"{who} does not speak Twinrun's graft protocol",
            seen=repr(prefix[:8]),
            expected=repr(MAGIC),
            do="give both jobs the same free HOST:PORT; something else listens or connects there",
        )
    if protocol != PROTOCOL:
        raise PeerError(
            f"{who} speaks another version of the graft protocol",
            seen=f"protocol {protocol}",
            expected=f"protocol {PROTOCOL}",
            do="run the same release of Twinrun on both sides",
        )
    if header_bytes > limit:
        raise PeerError(
            f"{who} announced a header of {header_bytes} bytes",
            expected=f"at most {limit} bytes",
        )
    return header_bytes, payload_bytes


def decode_header(text: bytes, who: str = "the peer") -> Header:
    """The header of a frame; PeerError for anything but one JSON object."""
    try:
        read = text.decode("utf-8", "surrogatepass")
        header, end = _decoder.raw_decode(read)
        if end != len(read):
            raise ValueError(f"{len(read) - end} characters follow it")
    except (ValueError, RecursionError) as error:
        raise PeerError(f"{who} sent a header that is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise PeerError(
            f"{who} sent a header that is no JSON object", seen=text[:80].decode("utf-8", "replace")
        )
    return header


quoted = lru_cache(maxsize=4096)(_encoder.encode)
"""A text as JSON."""


def field(header: Mapping[str, Any], key: str, kind: type, who: str = "the peer") -> Any:
    """``header[key]``, checked to be a ``kind`` (a bool is no int); PeerError otherwise."""
    value = header.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise PeerError(
            f"{who} sent a message whose {key!r} is not a {kind.__name__}", seen=repr(value)[:80]
        )
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
