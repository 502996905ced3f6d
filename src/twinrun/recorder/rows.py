"""Index lines as checked rows, before steps and occurrences are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from twinrun.recorder.dtypes import BY_NAME
from twinrun.recorder.record import Tag
from twinrun.recorder.segment import PAYLOAD_ALIGNMENT
from twinrun.recorder.untrusted import as_int, as_text, parse_object

KINDS = frozenset({"activation", "gradient", "parameter", "buffer"})
ROLES = frozenset({"input", "output", "dump", "parameter", "native", "shadow", "operator"})
_MOST_DIMS = 64
_MOST_LINKS = 1 << 16
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_AFTER_HEAD = b',"call":'
_OWN = frozenset(
    {"number", "call", "mark", "order", "begun", "stats", "sources", "parents", "offset"}
)


class Head(NamedTuple):
    """What a line says of its record's sort; lines of one sort share it."""

    name: str
    kind: str
    role: str
    module: str
    module_class: str
    root: int
    tags: Mapping[str, Tag]
    dims: str | None
    dims_source: str
    mesh: Mapping[str, tuple[int, int]]
    dtype: str
    shape: tuple[int, ...]
    device: str
    nbytes: int
    reduction: int
    recompute: bool


class Row(NamedTuple):
    """One index line; ``call`` and ``mark`` become the step, ``offset`` is None without payload."""

    head: Head
    number: int
    call: int
    mark: int
    order: int
    begun: int
    stats: Mapping[str, float | int] | None
    sources: tuple[int, ...]
    parents: tuple[int, ...]
    offset: int | None


_FIELDS = _OWN | set(Head._fields)


class Rows:
    """Makes rows of index lines, sharing equal heads, texts, shapes, tags and meshes."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self._texts: dict[str, str] = {}
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._mappings: dict[tuple[object, ...], Mapping[str, Any]] = {}

    def row(self, line: bytes, roots: int, where: str) -> Row:
        """Check one line; CaptureError where it is no JSON object, KeyError for a field that is
        missing, ValueError for one that is wrong.

        roots: how many rows the process's root table has.
        """
        # As the writer orders a line, its head stands between the number and the call.
        first, last = line.find(b","), line.rfind(_AFTER_HEAD)
        known = self._heads.get(line[first:last])
        if known is not None:
            told = parse_object(line[:first] + line[last:], where)
            head = known
        else:
            told = parse_object(line, where)
            head = self._head(told)
            if set(told) - _FIELDS:
                raise ValueError(f"unknown field {min(set(told) - _FIELDS)!r}")
            if first < last and _is_head(line[first:last]):
                self._heads[line[first:last]] = head
        if head.root >= roots:
            raise ValueError(f"root {head.root} is not among the {roots} roots of process.json")
        return _row(head, told)

    def _head(self, line: Mapping[str, Any]) -> Head:
        dims = line.get("dims")
        return Head(
            name=self._text(line["name"]),
            kind=self._word(line["kind"], KINDS),
            role=self._word(line["role"], ROLES),
            module=self._text(line.get("module", "")),
            module_class=self._text(line.get("module_class", "")),
            root=as_int(line["root"], -1),
            tags=self._mapping(line.get("tags"), _tag),
            dims=None if dims is None else self._text(dims),
            dims_source=self._text(line.get("dims_source", "")),
            mesh=self._mapping(line.get("mesh"), _coordinate),
            dtype=self._text(line["dtype"]),
            shape=self._shape(line["shape"]),
            device=self._text(line["device"]),
            nbytes=as_int(line["nbytes"]),
            reduction=as_int(line.get("reduction", 0)),
            recompute=_flag(line.get("recompute", False)),
        )

    def _text(self, value: object) -> str:
        known = self._texts.get(value) if type(value) is str else None
        if known is None:
            known = self._texts.setdefault(as_text(value), as_text(value))
        return known

    def _word(self, value: object, known: frozenset[str]) -> str:
        word = self._text(value)
        if word not in known:
            raise ValueError(f"{word!r} is none of {', '.join(sorted(known))}")
        return word

    def _shape(self, value: object) -> tuple[int, ...]:
        if type(value) is not list or len(value) > _MOST_DIMS:
            raise ValueError(f"a shape is a list of at most {_MOST_DIMS} sizes")
        shape = tuple(as_int(size) for size in value)
        return self._shapes.setdefault(shape, shape)

    def _mapping(self, value: object, check: Callable[[object], object]) -> Mapping[str, Any]:
        if value is None:
            return _EMPTY
        if type(value) is not dict:
            raise ValueError("tags and mesh are JSON objects")
        held = {self._text(key): check(item) for key, item in value.items()}
        # Types are part of the key: 1, 1.0 and True are equal and hash alike.
        key = tuple((name, item, type(item)) for name, item in held.items())
        return self._mappings.setdefault(key, held)


def _is_head(text: bytes) -> bool:
    """Whether ``,"name":...`` alone holds the head's fields: then it may stand for a whole line."""
    try:
        held = json.loads(b"{" + text[1:] + b"}")
    except (ValueError, RecursionError):
        return False
    return isinstance(held, dict) and not set(held) & _OWN


def _row(head: Head, told: Mapping[str, Any]) -> Row:
    number = as_int(told["number"])
    order = as_int(told["order"])
    offset = told.get("offset")
    if offset is not None:
        _check_payload(as_int(offset), head)
    return Row(
        head,
        number,
        as_int(told["call"]),
        as_int(told["mark"]),
        order,
        as_int(told["begun"], 0, order) if "begun" in told else order,
        _stats(told["stats"]) if "stats" in told else None,
        _links(told["sources"], number) if "sources" in told else (),
        _links(told["parents"], number) if "parents" in told else (),
        offset,
    )


def _check_payload(offset: int, head: Head) -> None:
    known = BY_NAME.get(head.dtype)
    if known is None:
        raise ValueError(f"dtype {head.dtype!r} is unknown to this torch")
    needed = math.prod(head.shape) * known.itemsize
    if needed != head.nbytes:
        raise ValueError(
            f"shape {list(head.shape)} of {head.dtype} needs {needed} bytes, not {head.nbytes}"
        )
    if offset % PAYLOAD_ALIGNMENT:
        raise ValueError(f"offset {offset} is no multiple of {PAYLOAD_ALIGNMENT}")


def _tag(value: object) -> Tag:
    if type(value) is str:
        return as_text(value)
    if type(value) is bool or type(value) is float:
        return value
    return as_int(value, -(1 << 63))


def _coordinate(value: object) -> tuple[int, int]:
    if type(value) is not list or len(value) != 2:
        raise ValueError("a mesh coordinate is [coordinate, size]")
    size = as_int(value[1], 1)
    return as_int(value[0], 0, size - 1), size


def _stats(value: object) -> dict[str, float | int]:
    if type(value) is not dict or len(value) > 64:
        raise ValueError("stats are a JSON object")
    if not all(type(item) in (int, float) for item in value.values()):
        raise ValueError("stats hold numbers")
    return value


def _links(value: object, number: int) -> tuple[int, ...]:
    if type(value) is not list or len(value) > _MOST_LINKS:
        raise ValueError("sources and parents are lists of record numbers")
    return tuple(as_int(link, 0, number - 1) for link in value)


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("recompute is true or false")
    return value
