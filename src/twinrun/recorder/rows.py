"""Index lines as checked rows, before steps and occurrences are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from twinrun.recorder.dtypes import BY_NAME
from twinrun.recorder.record import Tag
from twinrun.recorder.segment import PAYLOAD_ALIGNMENT
from twinrun.recorder.untrusted import as_int, as_text

KINDS = frozenset({"activation", "gradient", "parameter", "buffer"})
ROLES = frozenset({"input", "output", "dump", "parameter"})
_MOST_DIMS = 64
_MOST_LINKS = 1 << 16
_EMPTY: Mapping[str, Any] = {}


class Row(NamedTuple):
    """One index line; ``call`` and ``mark`` become the step, ``offset`` is None without payload."""

    number: int
    call: int
    mark: int
    order: int
    begun: int
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
    stats: Mapping[str, float | int] | None
    sources: tuple[int, ...]
    parents: tuple[int, ...]
    reduction: int
    recompute: bool
    offset: int | None


class Rows:
    """Makes rows of parsed lines, sharing equal texts, shapes, tags and meshes between them."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._mappings: dict[tuple[object, ...], Mapping[str, Any]] = {}

    def row(self, line: Mapping[str, Any], roots: int) -> Row:
        """Check one line; KeyError for a field that is missing, ValueError for one that is wrong.

        roots: how many rows the process's root table has.
        """
        number = as_int(line["number"])
        order = as_int(line["order"])
        dtype = self._text(line["dtype"])
        shape = self._shape(line["shape"])
        nbytes = as_int(line["nbytes"])
        offset = line.get("offset")
        if offset is not None:
            _check_payload(as_int(offset), nbytes, dtype, shape)
        dims = line.get("dims")
        return Row(
            number=number,
            call=as_int(line["call"]),
            mark=as_int(line["mark"]),
            order=order,
            begun=as_int(line.get("begun", order), 0, order),
            name=self._text(line["name"]),
            kind=self._word(line["kind"], KINDS),
            role=self._word(line["role"], ROLES),
            module=self._text(line.get("module", "")),
            module_class=self._text(line.get("module_class", "")),
            root=as_int(line["root"], -1, roots - 1),
            tags=self._mapping(line.get("tags"), _tag),
            dims=None if dims is None else self._text(dims),
            dims_source=self._text(line.get("dims_source", "")),
            mesh=self._mapping(line.get("mesh"), _coordinate),
            dtype=dtype,
            shape=shape,
            device=self._text(line["device"]),
            nbytes=nbytes,
            stats=_stats(line["stats"]) if "stats" in line else None,
            sources=_links(line.get("sources", ()), number),
            parents=_links(line.get("parents", ()), number),
            reduction=as_int(line.get("reduction", 0)),
            recompute=_flag(line.get("recompute", False)),
            offset=offset,
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


def _check_payload(offset: int, nbytes: int, dtype: str, shape: tuple[int, ...]) -> None:
    known = BY_NAME.get(dtype)
    if known is None:
        raise ValueError(f"dtype {dtype!r} is unknown to this torch")
    needed = math.prod(shape) * known.itemsize
    if needed != nbytes:
        raise ValueError(f"shape {list(shape)} of {dtype} needs {needed} bytes, not {nbytes}")
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
    if value == ():
        return ()
    if type(value) is not list or len(value) > _MOST_LINKS:
        raise ValueError("sources and parents are lists of record numbers")
    return tuple(as_int(link, 0, number - 1) for link in value)


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("recompute is true or false")
    return value
