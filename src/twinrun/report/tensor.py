"""One point of a capture as a page: layout and statistics on every rank, values of one record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from twinrun.recorder.record import Record
from twinrun.report.figures import element, figure, numbers, shape, size
from twinrun.report.page import Block, Field, Fields, Headline, Page, Table

_STATISTICS = ("mean", "std", "min", "max", "abs_max", "l2", "zeros", "nans", "infs")


@dataclass(frozen=True, slots=True)
class Seen:
    """One record with its statistics (None where nothing of its values was kept)."""

    record: Record
    statistics: Mapping[str, float | int | str] | None


def tensor_page(
    seen: Sequence[Seen], values: Iterable[tuple[str, str]], elsewhere: Iterable[int]
) -> Page:
    """The page of the records of one name; ``values`` are rows of the first of them.

    ``elsewhere`` are the steps that hold this name too and are not shown.
    """
    first = seen[0].record
    page: list[Block | None] = [Headline("TENSOR", (first.name, f"step {first.step}"))]
    page += [Fields(tuple(_facts(first)), indent=2), None, _layouts(seen), None, _statistics(seen)]
    rows = tuple(values)
    if rows:
        page += [None, Table((), rows, title=f"values of rank {first.rank}{_nth(first)}")]
    steps = sorted(elsewhere)
    if steps:
        page += [
            None,
            Fields(
                (
                    Field.of(
                        "also at",
                        f"step{'s' if len(steps) > 1 else ''} {numbers(steps)} (--step N)",
                    ),
                )
            ),
        ]
    return page


def _facts(record: Record) -> Iterable[Field]:
    yield Field.of("is", f"{record.kind}, {record.role}")
    if record.module_class:
        where = f" of {record.module}" if record.module else ""
        yield Field.of("module", record.module_class + where)
    if record.tags:
        yield Field.of("tags", ", ".join(f"{key}={value}" for key, value in record.tags.items()))


def _layouts(seen: Sequence[Seen]) -> Table:
    rows = tuple(
        (
            f"{one.record.rank}{_nth(one.record)}",
            one.record.dtype,
            shape(one.record.shape),
            one.record.dims or "",
            one.record.dims_source,
            " ".join(f"{axis}={at}/{of}" for axis, (at, of) in one.record.mesh.items()),
            one.record.device,
            size(one.record.nbytes),
        )
        for one in seen
    )
    return Table(("rank", "dtype", "shape", "dims", "from", "mesh", "device", "size"), rows)


def _statistics(seen: Sequence[Seen]) -> Table:
    rows = tuple(
        (f"{one.record.rank}{_nth(one.record)}", *(_told(one, key) for key in _STATISTICS))
        for one in seen
    )
    right = frozenset(range(1, len(_STATISTICS) + 1))
    return Table(("rank", *(key.replace("_", "-") for key in _STATISTICS)), rows, right)


def _told(one: Seen, key: str) -> str:
    value = (one.statistics or {}).get(key)
    if value is None:
        return "-"
    return figure(value, 4) if isinstance(value, float) else element(value)


def _nth(record: Record) -> str:
    """Which of several records of one name and step this is, where it is not the plain first."""
    told = [f"occurrence {record.occurrence}"] if record.occurrence else []
    told += ["recomputed"] if record.recompute else []
    return f" ({', '.join(told)})" if told else ""
