"""The identity of an observation, and what one rank says about holding it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from twinrun.errors import PeerError
from twinrun.grafting.wire import field as read
from twinrun.recorder.dtypes import BY_NAME

BASELINE, TARGET = "baseline", "target"
ROLES = (BASELINE, TARGET)
B2T, T2B = "b2t", "t2b"
SENDER = {B2T: BASELINE, T2B: TARGET}
RECEIVER = {B2T: TARGET, T2B: BASELINE}
OTHER = {BASELINE: TARGET, TARGET: BASELINE}


class Point(NamedTuple):
    """(step, name, occurrence), the same in both runs; never the order of calls."""

    step: int
    name: str
    occurrence: int

    def __str__(self) -> str:
        again = f" #{self.occurrence}" if self.occurrence else ""
        return f"step {self.step}  {self.name}{again}"

    @property
    def at(self) -> tuple[int, int]:
        """Where it lies among the points of its name."""
        return self.step, self.occurrence

    @classmethod
    def read(cls, body: Any, who: str) -> Point:
        """A point from a message; PeerError for anything else."""
        if isinstance(body, list) and len(body) == 3:
            step, name, occurrence = body
            if type(step) is int and isinstance(name, str) and type(occurrence) is int:
                return cls(step, name, occurrence)
        raise PeerError(f"{who} sent a message without a point", seen=repr(body)[:80])


class Rank(NamedTuple):
    """One process of one of the two jobs."""

    role: str
    rank: int

    def __str__(self) -> str:
        return f"{self.role} rank {self.rank}"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one rank holds at a point: its layout annotation, mesh coordinates, shape and dtype.

    ``dims`` is "" where none is known. ``kind`` is the record's kind, or "value" for a non-tensor.
    """

    name: str
    dims: str
    mesh: tuple[tuple[str, int, int], ...]
    shape: tuple[int, ...]
    dtype: str
    kind: str
    described: str = field(init=False, repr=False, compare=False)
    """where it lies on the mesh, else its dims, in words"""

    def __post_init__(self) -> None:
        where = " ".join(f"{axis} {at}/{size}" for axis, at, size in self.mesh)
        object.__setattr__(self, "described", where or self.dims or "whole")

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dims": self.dims,
            "mesh": [list(axis) for axis in self.mesh],
            "shape": list(self.shape),
            "dtype": self.dtype,
            "kind": self.kind,
        }

    @classmethod
    def read(cls, body: Mapping[str, Any], who: str) -> Holding:
        """A holding from a message; PeerError for anything else."""
        shape, mesh = read(body, "shape", list, who), read(body, "mesh", list, who)
        if not all(type(n) is int and n >= 0 for n in shape) or not all(map(_is_axis, mesh)):
            raise PeerError(
                f"{who} sent a shape or mesh that makes no sense", seen=repr(body)[:120]
            )
        kind, dtype = read(body, "kind", str, who), read(body, "dtype", str, who)
        if kind != "value" and dtype not in BY_NAME:
            raise PeerError(f"{who} holds a dtype that this torch does not know", seen=dtype[:40])
        return cls(
            name=read(body, "name", str, who),
            dims=read(body, "dims", str, who),
            mesh=tuple((axis, at, size) for axis, at, size in mesh),
            shape=tuple(shape),
            dtype=dtype,
            kind=kind,
        )

    def coordinates(self) -> dict[str, tuple[int, int]]:
        """axis -> (coordinate, size)."""
        return {axis: (at, size) for axis, at, size in self.mesh}

    def __str__(self) -> str:
        mesh = " ".join(f"{axis}={at}/{size}" for axis, at, size in self.mesh)
        return f"{self.dtype} {list(self.shape)} dims {self.dims or 'unknown'!r} mesh {mesh or 'unknown'}"


def _is_axis(body: Any) -> bool:
    return (
        isinstance(body, list)
        and len(body) == 3
        and isinstance(body[0], str)
        and all(type(n) is int for n in body[1:])
        and 0 <= body[1] < body[2]
    )
