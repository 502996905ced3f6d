"""What a capture holds, folded: one entry for all the records that share a name, type and shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from twinrun.recorder.filter import Facts
from twinrun.recorder.record import Record


@dataclass(slots=True)
class Entry:
    """One point over its steps and ranks: what is the same, and a count of the rest."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    dims: str
    recompute: bool
    axes: dict[str, int] = field(default_factory=dict)
    steps: set[int] = field(default_factory=set)
    ranks: set[int] = field(default_factory=set)
    records: int = 0
    nbytes: int = 0


def folded(records: Iterable[Record]) -> list[Entry]:
    """Entries in the order in which their first record was observed; memory grows with the names."""
    entries: dict[tuple[object, ...], Entry] = {}
    for record in records:
        identity = (
            record.name,
            record.kind,
            record.dtype,
            record.shape,
            record.dims,
            record.recompute,
        )
        entry = entries.get(identity)
        if entry is None:
            entry = entries[identity] = Entry(
                record.name, record.kind, record.dtype, record.shape, record.dims or "", record.recompute
            )  # fmt: skip
        entry.axes.update((axis, size) for axis, (_, size) in record.mesh.items() if size > 1)
        entry.steps.add(record.step)
        entry.ranks.add(record.rank)
        entry.records += 1
        entry.nbytes += record.nbytes
    return list(entries.values())


def chosen(
    records: Iterable[Record],
    *,
    step: int | None = None,
    rank: int | None = None,
    name: Callable[[str], bool] = lambda name: True,
    wanted: Callable[[Facts], bool] = lambda facts: True,
) -> Iterable[Record]:
    """The records that every filter takes, as they come."""
    for record in records:
        if step is not None and record.step != step:
            continue
        if rank is not None and record.rank != rank:
            continue
        if name(record.name) and wanted(facts_of(record)):
            yield record


def facts_of(record: Record) -> Facts:
    """What a filter can ask of a record: the fields that it has while recording, and its tags."""
    own: Mapping[str, str | int | float | bool] = {
        "name": record.name,
        "kind": record.kind,
        "role": record.role,
        "module": record.module,
        "module_class": record.module_class,
        "rank": record.rank,
        "step": record.step,
        "dtype": record.dtype,
    }
    return {**record.tags, **own}
