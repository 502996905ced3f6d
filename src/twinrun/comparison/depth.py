"""How many roundings lie between a run's start and a point, and how long its sums were."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from twinrun.comparison.points import Point, Points
from twinrun.numerics.dtypes import coarser, format_of
from twinrun.numerics.floor import PER_BLOCK
from twinrun.recorder.record import Record

_NUMBER = re.compile(r"\.?(\d+)(?=\.|$)")
_LAYER_TAGS = ("layer", "layer_id", "layer_idx", "block")
# Between two tensors that somebody dumped by hand lie a few operations.
_PER_DUMP = 4

# Sums inside a module that is not looked into: a transformer's inner width is 2.7 to 4 times its outer, and
# a block ends two of them.
_UNSEEN = 8


@dataclass(frozen=True, slots=True)
class Way:
    """What a point's value went through: roundings, the longest sum, the coarsest float type.

    ``coarsest`` is a dtype's name: a loss in float32 over bfloat16 layers is as noisy as they are.
    """

    depth: int
    reduction: int
    coarsest: str = ""
    gradient: bool = False


def ways(points: Points) -> Iterator[tuple[Point, Way]]:
    """Each point in execution order with its way from the start of the step.

    A block - a module path up to its first number, such as ``model.layers.3`` - counts
    `PER_BLOCK` roundings when it is first entered, going forward and again going backward; another
    module that gives a value counts one. Sums are as long as the recorder says (``in_features``)
    or eight times as long as the tensors are wide, for gradients of weights as long as there are rows. Where a run
    records gradients, one step's depth carries over to the next: its weights were updated.
    """
    trains = False
    walk = _Walk()
    step = None
    for point in points:
        record = points.first(point)
        trains = trains or record.kind == "gradient"
        if record.step != step:
            walk = walk.next(trains)
            step = record.step
        yield point, walk.pass_by(record, _widths(points.records(point)))


class _Walk:
    def __init__(self, depth: int = 0, coarsest: str = "") -> None:
        self.depth = depth
        self._reduction = 1
        self._coarsest = coarsest
        self._rows = 1
        self._passed: set[tuple[str, str]] = set()

    def next(self, trains: bool) -> _Walk:
        """The walk of the next step."""
        return _Walk(self.depth, self._coarsest) if trains else _Walk()

    def pass_by(self, record: Record, widths: tuple[int, int]) -> Way:
        """Take one point in and say where it stands."""
        if record.role == "parameter" and record.kind != "gradient":
            return Way(1, 1)
        if format_of(record.dtype).exact:
            return Way(self.depth, self._reduction, self._coarsest)
        if record.role in ("output", "dump"):
            self._coarsest = coarser(self._coarsest, record.dtype).name
        self.depth += self._roundings(record)
        self._reduction = max(self._reduction, record.reduction or _UNSEEN * widths[0])
        self._rows = max(self._rows, widths[1])
        sums_rows = record.role == "parameter"
        length = max(self._reduction, self._rows if sums_rows else 1)
        return Way(self.depth, length, self._coarsest, record.kind == "gradient")

    def _roundings(self, record: Record) -> int:
        block = _block(record)
        direction = "recompute" if record.recompute else record.kind
        key = (direction, block or record.module or f"{record.name} {record.occurrence}")
        if key in self._passed or (not block and record.role not in ("output", "dump")):
            return 0
        self._passed.add(key)
        if block:
            return PER_BLOCK
        return 1 if record.module else _PER_DUMP


def _block(record: Record) -> str:
    """The numbered block that a record belongs to, or nothing."""
    for tag in _LAYER_TAGS:
        if tag in record.tags:
            return f"{tag}={record.tags[tag]}"
    path = record.module or record.name.partition(":")[0]
    found = _NUMBER.search(path)
    return path[: found.end()] if found else ""


def _widths(records: Iterable[Record]) -> tuple[int, int]:
    """The last dim, and all others together, of the largest record."""
    shape = max((record.shape for record in records), key=math.prod, default=())
    last = shape[-1] if shape else 1
    return max(1, last), max(1, math.prod(shape[:-1]))
