"""The index: one JSON object a line, one line a record (docs/format.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from twinrun.recorder.dtypes import stored_code
from twinrun.recorder.record import Tag

LONGEST_NAME = 4096


@dataclass(frozen=True, slots=True)
class Heading:
    """What records of one sort share, rendered once: the constant parts of both files' entries.

    ``line`` begins the index line after its number, ``entry`` the segment header's value before
    its offsets; ``dtype``, ``shape`` and ``nbytes`` describe the payload.
    """

    line: str
    entry: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class Entry(NamedTuple):
    """One record on its way to the writer."""

    heading: Heading
    number: int
    call: int
    mark: int
    order: int
    begun: int
    sources: tuple[int, ...]
    parents: tuple[int, ...]

    def line(self, offset: int, stats: Mapping[str, float | int] | None) -> str:
        """The index line; ``offset`` is the payload's first byte in its file, -1 without one."""
        heading, number, call, mark, order, begun, sources, parents = self
        text = f'{{"number":{number},{heading.line},"call":{call},"mark":{mark},"order":{order}'
        if begun != order:
            text += f',"begun":{begun}'
        if sources:
            text += f',"sources":[{",".join(map(str, sources))}]'
        if parents:
            text += f',"parents":[{",".join(map(str, parents))}]'
        if stats is not None:
            text += f',"stats":{json.dumps(stats, allow_nan=False)}'
        return f'{text},"offset":{offset}}}\n' if offset >= 0 else text + "}\n"


def heading(
    *,
    name: str,
    kind: str,
    role: str,
    module: str,
    module_class: str,
    root: int,
    tags: Mapping[str, Tag],
    dims: str | None,
    dims_source: str,
    mesh: Mapping[str, tuple[int, int]],
    dtype: str,
    shape: tuple[int, ...],
    device: str,
    nbytes: int,
    reduction: int,
    recompute: bool,
) -> Heading:
    """The heading of such records; fields at their default are left out of the line."""
    required = {"name": _clean(name), "kind": kind, "role": role, "root": root}
    optional: dict[str, Any] = {
        "module": _clean(module),
        "module_class": _clean(module_class),
        "tags": dict(tags),
        "dims": None if dims is None else _clean(dims),
        "dims_source": dims_source,
        "mesh": {axis: list(place) for axis, place in mesh.items()},
        "reduction": reduction,
        "recompute": recompute,
    }
    payload = {"dtype": dtype, "shape": list(shape), "device": device, "nbytes": nbytes}
    held = required | {key: value for key, value in optional.items() if value} | payload
    code = stored_code(dtype)
    stored_shape = list(shape) if code else [nbytes]
    entry = f'{{"dtype":"{code or "U8"}","shape":{json.dumps(stored_shape, separators=(",", ":"))}'
    line = json.dumps(held, separators=(",", ":"), allow_nan=False)[1:-1]
    return Heading(line, entry + ',"data_offsets":[', dtype, shape, nbytes)


def _clean(text: str) -> str:
    """Text that every UTF-8 file and terminal can hold: lone surrogates become escapes."""
    return text[:LONGEST_NAME].encode("utf-8", "backslashreplace").decode()
