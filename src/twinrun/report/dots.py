"""The rows of a comparison as points of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from twinrun.comparison.picture import Pictures
from twinrun.comparison.result import Operand, Result, Row
from twinrun.report.document import Dot, Isolated
from twinrun.report.figures import ranks, safe, shape
from twinrun.report.opening import clean
from twinrun.report.page import Field
from twinrun.report.point import point_fields
from twinrun.report.privacy import Privacy

Key = tuple[int, str, int]
"""Step, name and occurrence: what the two accounts of a point have in common."""


def dots(
    result: Result,
    privacy: Privacy,
    pictures: Pictures | None,
    isolated: Mapping[Key, tuple[Isolated, tuple[Field, ...]]],
) -> Iterator[Dot]:
    """Every row, in order, with its picture and its isolated error where there are such."""
    for row in result.rows:
        apart, more = isolated.get((row.step, row.name, row.occurrence), (None, ()))
        fields = (*point_fields(row), *more)
        floor = row.floor
        yield Dot(
            position=row.position,
            step=row.step,
            name=safe(row.name),
            occurrence=row.occurrence,
            recompute=row.recompute,
            verdict=row.verdict,
            reason=safe(row.reason),
            error=row.measures.relative_l2 if row.measures else None,
            allowed=floor.l2 if floor else None,
            undecided_to=floor.l2 * floor.k if floor else None,
            worst_allowed=floor.worst if floor else None,
            layout=safe(_layout(row)),
            fields=tuple(clean(field, privacy) for field in fields),
            isolated=apart,
            picture=pictures.drawn.get(row.position) if pictures else None,
            no_picture=safe(_no_picture(row, pictures)),
        )


def _layout(row: Row) -> str:
    """Both sides' shape and ranks in a line, once where they are the same."""
    told = [_side(side) for side in (row.baseline, row.target) if side]
    if not (row.baseline and row.target):
        return f"{'baseline' if row.baseline else 'target'} {told[0]}" if told else ""
    return told[0] if told[0] == told[1] else f"baseline {told[0]}; target {told[1]}"


def _side(side: Operand) -> str:
    dims = f" '{side.dims}'" if side.dims else ""
    where = f", {ranks(side.ranks)}" if side.ranks else ""
    return f"{shape(side.shape)} {side.dtype}{dims}{where}"


def _no_picture(row: Row, pictures: Pictures | None) -> str:
    if pictures is None:
        return "No pictures were taken."
    if row.position in pictures.drawn:
        return ""
    if row.position in pictures.refused:
        return f"There is no picture of this point: {pictures.refused[row.position]}."
    if row.measures is None:
        return "There is nothing to draw: the two sides were not measured against each other."
    if row.measures.bits_equal:
        return "There is nothing to draw: all bits are equal."
    return (
        f"This point is not among the {pictures.limit} that were drawn: where the runs part, the worst, "
        "and the worst of each module."
    )
