"""Headings by their facts: the filter's decision and the rendered text, made once for each."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import NamedTuple

import torch

from twinrun.errors import DimsError
from twinrun.layout.parse import parse_dims
from twinrun.recorder.dtypes import NAMES
from twinrun.recorder.filter import Facts, Filter
from twinrun.recorder.index import LONGEST_NAME, Heading, heading
from twinrun.recorder.record import Tag

_MOST_KEPT = 1 << 14
_MOST_DECLINED = 1000
_LAYER = re.compile(r"(?:^|\.)(\d+)(?=[.:]|$)")


class Sort(NamedTuple):
    """Everything that records of one heading share; also the key under which it is kept."""

    name: object  # a str, unless the caller of dump() gave something else
    kind: str
    role: str
    module: str
    module_class: str
    root: int
    tags: tuple[tuple[str, Tag], ...]
    tag_types: tuple[type, ...]
    dims: str | None
    dims_source: str
    mesh: tuple[tuple[str, tuple[int, int]], ...]
    reduction: int
    recompute: bool
    dtype: torch.dtype
    shape: tuple[int, ...]
    device: str
    refusal: str


class Headings:
    """Keeps headings, or None where the filter declines, under a bound on their number."""

    def __init__(
        self, accepts: Filter, note: Callable[[str], None], problem: Callable[[str], None]
    ) -> None:
        self._filter = accepts
        self._tell = note
        self._problem = problem
        self._kept: dict[tuple[object, ...], Heading | None] = {}
        # What a decision may depend on beyond the sort itself changes from call to call.
        self._lasting = not accepts.reads & {"step", "rank", "call"}
        self.declined: dict[str, None] = {}

    def of(self, key: tuple[object, ...], moment: Callable[[], Facts]) -> Heading | None:
        """The heading of what ``Sort`` names, in its order; None where the filter declines.

        moment: gives the facts that hold now: step, call and rank.
        """
        try:
            return self._kept[key]
        except KeyError:
            hashable = True
        except TypeError:  # a tag that is no plain value
            hashable = False
        sort = self._plain(Sort(*key))  # type: ignore[arg-type]
        made = None
        if self.takes(sort, moment):
            self._check_dims(sort)
            made = self._render(sort)
        elif len(self.declined) < _MOST_DECLINED:
            self.declined[str(sort.name)] = None
        if self._lasting and hashable:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = made
        return made

    def takes(self, sort: Sort, moment: Callable[[], Facts]) -> bool:
        """The filter's decision."""
        return not self.filtering or self._filter({**facts_of(sort), **moment()})

    @property
    def filtering(self) -> bool:
        """Whether the filter looks at anything at all."""
        return bool(self._filter.reads)

    def _check_dims(self, sort: Sort) -> None:
        """Tell of an annotation that does not fit, where the program can still be pointed at."""
        if not sort.dims or sort.dims_source != "annotation":
            return
        try:
            parse_dims(sort.dims).check(sort.shape, name=str(sort.name), where=_caller())
        except DimsError as error:
            seen = f" ({error.seen})" if error.seen else ""
            self._problem(f"{error.summary}{seen}")

    def _plain(self, sort: Sort) -> Sort:
        """The same with a text for its name and tags of the four types that the index holds."""
        tags = tuple((str(key), self._plain_tag(str(key), value)) for key, value in sort.tags)
        name = str(sort.name)
        if not isinstance(sort.name, str):
            self._tell(f"a name of type {type(sort.name).__name__} was recorded as {name!r}")
        if len(name) > LONGEST_NAME:
            self._tell(f"a name of {len(name)} characters was cut to {LONGEST_NAME}: {name[:60]}")
        types = tuple(type(value) for _, value in tags)
        return sort._replace(name=name, tags=tags, tag_types=types)

    def _plain_tag(self, key: str, value: object) -> Tag:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if type(value) in (str, int, float, bool):
            return _bounded(value)  # type: ignore[arg-type]
        self._tell(f"tag {key!r} holds a {type(value).__name__}; it was recorded as text")
        return _bounded(str(value))

    def _render(self, sort: Sort) -> Heading:
        tags = dict(sort.tags)
        if sort.refusal:
            tags["no_payload"] = sort.refusal
        elements = math.prod(sort.shape)
        return heading(
            name=str(sort.name),
            kind=sort.kind,
            role=sort.role,
            module=sort.module,
            module_class=sort.module_class,
            root=sort.root,
            tags=tags,
            dims=sort.dims,
            dims_source=sort.dims_source,
            mesh=dict(sort.mesh),
            dtype=NAMES.get(sort.dtype, str(sort.dtype).removeprefix("torch.")),
            shape=tuple(sort.shape),
            device=str(sort.device),
            nbytes=elements * sort.dtype.itemsize,
            reduction=sort.reduction,
            recompute=sort.recompute,
        )


def _caller() -> str:
    """The line of the program that made the record."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("twinrun."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def probe(
    name: str,
    kind: str,
    role: str,
    module: str,
    module_class: str,
    recompute: bool,
    tags: Mapping[str, Tag],
) -> Sort:
    """A sort that only a filter will look at."""
    return Sort(
        name, kind, role, module, module_class, 0, tuple(tags.items()), (), None, "", (), 0,
        recompute, torch.uint8, (), "", "",
    )  # fmt: skip


def facts_of(sort: Sort) -> dict[str, Tag]:
    """What a filter may ask of a record; ``layer`` is the name's first index where no tag says."""
    facts: dict[str, Tag] = {}
    name = str(sort.name)
    index = _LAYER.search(name)
    if index is not None and len(index[1]) < 10:
        facts["layer"] = int(index[1])
    facts.update(sort.tags)
    facts.update(
        name=name,
        kind=sort.kind,
        role=sort.role,
        module=sort.module,
        module_class=sort.module_class,
        recompute=sort.recompute,
    )
    return facts


def _bounded(value: Tag) -> Tag:
    if isinstance(value, str):
        return value[:LONGEST_NAME].encode("utf-8", "backslashreplace").decode()
    if type(value) is int and value.bit_length() > 63:
        return str(value) if value.bit_length() < 10_000 else "an integer of too many digits"
    return value


def mesh_key(
    mesh: Mapping[str, tuple[int, int]] | None,
) -> tuple[tuple[str, tuple[int, int]], ...]:
    """A mesh as a part of a key."""
    return tuple((axis, (place[0], place[1])) for axis, place in mesh.items()) if mesh else ()
