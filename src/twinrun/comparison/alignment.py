"""Two sides of a point brought to logical tensors of one shape: stated layouts first, then inferred."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from twinrun.comparison.infer import infer, infer_pair
from twinrun.comparison.inference import Candidate, Inference, NoFit
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.logical import Logical, of_group, of_tensor
from twinrun.comparison.replicas import ReplicaDifference, check_replicas
from twinrun.comparison.result import Measured, Operand
from twinrun.comparison.shards import Shard, fetcher, held
from twinrun.comparison.view import View
from twinrun.errors import DimsError, LayoutError
from twinrun.layout import DATA_AXES, Dims, Group, Mesh, Placement, parse_dims, place
from twinrun.recorder.record import Record

_NO_AXES: frozenset[str] = frozenset()


class Misfit(Exception):
    """This point's tensors cannot be held side by side: with which verdict, reason and words."""

    def __init__(self, measured: Measured, reason: str, text: str) -> None:
        super().__init__(text)
        self.measured: Measured = measured
        self.reason = reason
        self.text = text


@dataclass(frozen=True)
class Held:
    """What one run recorded of a point: a record a rank, ascending by rank."""

    view: View
    records: tuple[Record, ...]
    layouts: Layouts = field(default_factory=Layouts)

    @property
    def first(self) -> Record:
        return self.records[0]

    @cached_property
    def shards(self) -> Mapping[int, Shard]:
        return {record.rank: self._shard(record) for record in self.records}

    @property
    def data_axes(self) -> frozenset[str]:
        """Axes whose ranks hold other samples: none for what belongs to the weights."""
        weights = self.first.role == "parameter" or self.first.kind in ("parameter", "buffer")
        return _NO_AXES if weights else DATA_AXES

    def stated(self) -> Side | None:
        """The layout that something states, or the whole tensor on one rank; else None."""
        texts = {record.dims for record in self.records}
        if len(texts) > 1:
            raise Misfit(
                "unreadable", "layout", f"ranks annotate different dims: {sorted(map(str, texts))}"
            )
        text, source = self.first.dims, self.first.dims_source or "annotation"
        dims = self._parsed(text) if text is not None else None
        if dims is None and (dims := self.layouts.find(self.first.name)) is not None:
            source = "file"
        if dims is not None:
            return self._placed(dims, source)
        return Side(self, None, "whole") if len(self.records) == 1 else None

    def tensor(self, record: Record) -> torch.Tensor:
        return self.view.tensor(record)

    def release(self) -> None:
        """Drop the mappings of every rank."""
        for record in self.records:
            self.view.release(record)

    def _shard(self, record: Record) -> Shard:
        return Shard(Mesh(record.mesh), record.shape, lambda: self.view.tensor(record))

    def _parsed(self, text: str) -> Dims:
        try:
            return parse_dims(text)
        except DimsError as error:
            raise Misfit("unreadable", "layout", error.summary) from error

    def _placed(self, dims: Dims, source: str) -> Side:
        try:
            placed = place(dims, held(self.shards), data_axes=self.data_axes, name=self.first.name)
        except (DimsError, LayoutError) as error:
            raise Misfit("unreadable", "layout", error.summary) from error
        differences = tuple(check_replicas(placed, fetcher(self.shards)))
        return Side(self, placed, source, differences=differences)


@dataclass(frozen=True)
class Side:
    """One side of an aligned pair. ``placement`` None: one rank holds all of it.

    ``differences`` are replicas that are not equal; ``sums`` the pending sums that would explain
    them where the layout was inferred.
    """

    held: Held
    placement: Placement | None
    source: str
    why: str = ""
    differences: tuple[ReplicaDifference, ...] = ()
    sums: tuple[Candidate, ...] = ()

    @property
    def inferred(self) -> bool:
        return self.source == "inferred"

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape of the first sample group."""
        return self.held.first.shape if self.placement is None else self.placement.groups[0].shape

    @property
    def dims(self) -> Dims | None:
        return None if self.placement is None else self.placement.dims

    @cached_property
    def groups(self) -> tuple[Logical, ...]:
        """A logical tensor for each data coordinate."""
        if self.placement is None:
            record = self.held.first
            return (of_tensor(self.held.tensor(record), record.dtype),)
        return tuple(self._logical(group) for group in self.placement.groups)

    def alternatives(self) -> Iterator[tuple[int, int, Logical]]:
        """(group index, rank, the tensor as that rank has it) for every replica that differs."""
        if self.placement is None:
            return
        for rank in sorted({found.ranks[1] for found in self.differences}):
            for at, group in enumerate(self.placement.groups):
                if rank in group.ranks:
                    yield at, rank, self._logical(_seen_by(rank, group))

    def summed(self, candidate: Candidate) -> tuple[Logical, ...]:
        """The groups if the ranks' values were to be added as this candidate says."""
        return tuple(self._logical(group) for group in candidate.placement.groups)

    def operand(self) -> Operand:
        """This side for the result."""
        record = self.held.first
        source = self.source
        if self.inferred and self.placement is not None and not self.placement.dims.named_axes:
            source = "replicated"
        return Operand(
            name=record.name,
            shape=self.shape,
            dtype=record.dtype,
            dims="" if self.dims is None else str(self.dims),
            layout=source,
            ranks=tuple(one.rank for one in self.held.records),
        )

    def _logical(self, group: Group) -> Logical:
        return of_group(group, fetcher(self.held.shards), self.held.first.dtype)


def align(baseline: Held, target: Held) -> tuple[Side, Side]:
    """Both sides with layouts. Raises Misfit where nothing states or allows one layout."""
    one, two = baseline.stated(), target.stated()
    if one is not None and two is not None:
        return one, two
    if one is not None:
        return one, _inferred(target, one)
    if two is not None:
        return _inferred(baseline, two), two
    both = infer_pair(baseline.shards, target.shards, data_axes=baseline.data_axes)
    if isinstance(both, NoFit):
        raise _misfit(both)
    return _side(baseline, both[0]), _side(target, both[1])


def _inferred(held: Held, other: Side) -> Side:
    found = infer(held.shards, other.shape, data_axes=held.data_axes, like=other.dims)
    if isinstance(found, NoFit):
        raise _misfit(found)
    return _side(held, found)


def _misfit(found: NoFit) -> Misfit:
    """Several layouts that fit (counted first in the reason) leave the point open; none is a difference."""
    several = found.reason[:1].isdigit()
    listed = f": {'; '.join(found.layouts)}" if found.layouts else ""
    return Misfit("undecided" if several else "differs", "layout", found.reason + listed)


def _side(held: Held, found: Inference) -> Side:
    return Side(
        held, found.placement, "inferred", found.reason, found.differences, found.candidates
    )


def _seen_by(rank: int, group: Group) -> Group:
    """The group read through this rank wherever it is one of several replicas."""
    cells = tuple(
        replace(
            cell,
            addends=tuple(
                (rank, *(r for r in ranks if r != rank)) if rank in ranks else ranks
                for ranks in cell.addends
            ),
        )
        for cell in group.cells
    )
    return replace(group, cells=cells)
