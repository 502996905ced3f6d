"""Values that travel beside a tensor: scalars, text, bytes, lists, dicts, tensors. As JSON, never pickle."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from twinrun.errors import PeerError, UsageError

MAX_DEPTH = 32
_EXACT = 1 << 53
_SCALARS = (type(None), bool, int, float, str)


def encode_value(value: Any, is_tensor: Callable[[Any], bool]) -> tuple[Any, list[Any]]:
    """A JSON tree that stands for ``value``, and the tensors in it, in the order of their numbers.

    ``value``: None, bool, int, float, str, bytes, lists and dicts (scalar keys) of them, tensors.
    Raises UsageError that names the place of anything else.
    """
    tensors: list[Any] = []
    return _encode(value, is_tensor, tensors, "value", 0), tensors


def decode_value(tree: Any, tensors: list[Any], who: str = "the peer") -> Any:
    """The value that ``tree`` stands for; PeerError for a tree that no ``encode_value`` makes."""
    try:
        return _decode(tree, tensors, 0)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise PeerError(f"{who} sent a value that cannot be read: {error}") from None


def _encode(
    value: Any, is_tensor: Callable[[Any], bool], tensors: list[Any], path: str, depth: int
) -> Any:
    if depth > MAX_DEPTH:
        raise UsageError(
            f"{path} lies more than {MAX_DEPTH} levels deep", do="send a flatter value"
        )
    if type(value) in _SCALARS:
        return _encode_scalar(value)
    if type(value) is bytes:
        return {"b": base64.b64encode(value).decode("ascii")}
    if is_tensor(value):
        tensors.append(value)
        return {"t": len(tensors) - 1}
    if type(value) is list:
        return {
            "l": [
                _encode(v, is_tensor, tensors, f"{path}[{i}]", depth + 1)
                for i, v in enumerate(value)
            ]
        }
    if type(value) is dict:
        for key in value:
            if type(key) not in _SCALARS:
                raise _unsendable(key, f"a key of {path}")
        return {
            "d": [
                [_encode_scalar(k), _encode(v, is_tensor, tensors, f"{path}[{k!r}]", depth + 1)]
                for k, v in value.items()
            ]
        }
    raise _unsendable(value, path)


def _unsendable(value: Any, path: str) -> UsageError:
    return UsageError(
        f"{path} cannot be sent to the other run",
        seen=f"{type(value).__module__}.{type(value).__qualname__}",
        expected="None, bool, int, float, str, bytes, lists and dicts of them, and tensors",
        do="turn it into one of these (a tuple into a list, a dtype into its name)",
    )


def _encode_scalar(value: Any) -> Any:
    if type(value) is float:
        return {"f": value.hex()}
    if type(value) is int and not -_EXACT < value < _EXACT:
        return {"i": hex(value)}
    return value


def _decode(tree: Any, tensors: list[Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} levels deep")
    if tree is None or isinstance(tree, (bool, int, str)):
        return tree
    tag: Any = "?"
    body: Any = None
    if isinstance(tree, dict) and len(tree) == 1:
        ((tag, body),) = tree.items()
    if tag == "f":
        return float.fromhex(body)
    if tag == "i":
        return int(body, 16)
    if tag == "b":
        return base64.b64decode(body, validate=True)
    if tag == "t":
        return tensors[_index(body, tensors)]
    if tag == "l":
        return [_decode(v, tensors, depth + 1) for v in body]
    if tag == "d":
        return {_scalar_key(k, depth): _decode(v, tensors, depth + 1) for k, v in body}
    raise ValueError(f"unknown tag {tag!r}")


def _scalar_key(tree: Any, depth: int) -> Any:
    key = _decode(tree, [], depth + 1)
    if type(key) not in _SCALARS:
        raise ValueError("a key that is no scalar")
    return key


def _index(body: Any, tensors: list[Any]) -> int:
    if type(body) is not int or not 0 <= body < len(tensors):
        raise IndexError(f"no tensor number {body!r}")
    return body
