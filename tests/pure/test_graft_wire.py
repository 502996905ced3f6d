"""The wire of a graft: frames and values as hostile input, and nothing that could be unpickled."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.errors import PeerError, UsageError
from twinrun.grafting.values import MAX_DEPTH, decode_value, encode_value
from twinrun.grafting.wire import (
    MAGIC,
    PREFIX,
    PROTOCOL,
    decode_header,
    decode_prefix,
    encode,
    field,
)


class Blob:
    """Stands in for a tensor."""


def is_blob(value: Any) -> bool:
    return isinstance(value, Blob)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
keys = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    scalars | st.builds(Blob),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (
            a == b and math.copysign(1, a) == math.copysign(1, b)
        )
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and (a is b if isinstance(a, Blob) else a == b)


@given(trees)
def test_values_survive_the_wire(value: Any) -> None:
    """decode(json(encode(value))) is value, to the type, NaN, the sign of zero and the size of an integer."""
    tree, blobs = encode_value(value, is_blob)
    sent = encode({"v": tree})
    header = decode_header(sent[PREFIX.size :])
    assert same(decode_value(header["v"], blobs), value)


@pytest.mark.parametrize(
    "value", [(1, 2), {1, 2}, object(), [1, {"a": (1,)}], {(1,): 2}, 1j, bytearray(b"x")]
)
def test_other_types_are_refused_with_their_place(value: Any) -> None:
    """What JSON and tensors cannot carry is refused, never turned into something else."""
    with pytest.raises(UsageError, match="cannot be sent"):
        encode_value(value, is_blob)


def test_a_value_that_contains_itself_is_refused() -> None:
    """Depth is bounded, so a cycle ends in an error."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UsageError, match=f"{MAX_DEPTH} levels"):
        encode_value(loop, is_blob)


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("fibtldx"), inner, max_size=2)
    ),
    max_leaves=10,
)


@given(json_trees)
def test_a_hostile_tree_is_a_peer_error(tree: Any) -> None:
    """Any JSON either decodes or raises PeerError."""
    with contextlib.suppress(PeerError):
        decode_value(tree, [Blob()])


@given(st.binary(min_size=PREFIX.size, max_size=PREFIX.size))
def test_a_hostile_prefix_is_a_peer_error(prefix: bytes) -> None:
    """Random bytes are no frame of ours."""
    if prefix[:8] != MAGIC:
        with pytest.raises(PeerError, match="does not speak"):
            decode_prefix(prefix)


@given(st.binary(max_size=200))
def test_a_hostile_header_is_a_peer_error(text: bytes) -> None:
    """Random bytes either are a JSON object or raise PeerError."""
    with contextlib.suppress(PeerError):
        assert isinstance(decode_header(text), dict)


def test_deep_json_is_a_peer_error() -> None:
    """Nesting that would exhaust the parser's stack is refused."""
    with pytest.raises(PeerError):
        decode_header(b"[" * 200_000)


def test_another_version_and_a_large_header_are_told_apart() -> None:
    """The message names both versions; a header beyond the limit is refused before it is read."""
    with pytest.raises(PeerError, match="another version") as caught:
        decode_prefix(struct.pack("<8sHxxIQ", MAGIC, PROTOCOL + 1, 0, 0))
    assert f"protocol {PROTOCOL + 1}" in str(caught.value)
    with pytest.raises(PeerError, match="header of 4000000000 bytes"):
        decode_prefix(struct.pack("<8sHxxIQ", MAGIC, PROTOCOL, 4_000_000_000, 0))


def test_the_frame_is_these_bytes() -> None:
    """The format is frozen: magic, version, two zero bytes, sizes in little endian, compact JSON."""
    assert (
        encode({"t": "x"}, 5)
        == b"twinrun\0\x01\0\0\0\x09\0\0\0\x05\0\0\0\0\0\0\0"
        + json.dumps({"t": "x"}, separators=(",", ":")).encode()
    )


def test_fields_are_checked_by_type() -> None:
    """A missing field, another type and a bool for an int are PeerErrors."""
    for header in ({}, {"n": "1"}, {"n": True}):
        with pytest.raises(PeerError):
            field(header, "n", int)
