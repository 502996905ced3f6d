"""``twinrun show``: what a capture holds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from twinrun.errors import TwinrunError, UsageError

if TYPE_CHECKING:
    import torch

    from twinrun.recorder.reader import Capture
    from twinrun.recorder.record import Record
    from twinrun.report.tensor import Seen

_PATTERN = frozenset("*?[")


@click.command("show")
@click.argument("capture", metavar="DIR")
@click.argument("name", required=False)
@click.option("--step", type=click.IntRange(0), help="Only this step (of a tensor: the first).")
@click.option("--rank", type=click.IntRange(0), help="Only this rank.")
@click.option("--filter", "wanted", metavar="EXPR", help="Only records that this filter takes.")
@click.option("--at", metavar="I,J,...", help="Of a tensor: the values under this index.")
@click.option(
    "--top", default=0, show_default="all", type=click.IntRange(0), help="List that many points."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines, one a record (docs/json.md).")
def command(
    capture: str,
    name: str | None,
    step: int | None,
    rank: int | None,
    wanted: str | None,
    at: str | None,
    top: int,
    as_json: bool,
) -> None:
    """List what the capture in DIR holds; with NAME, show one tensor.

    NAME is a point's name: its layout, statistics and values are shown. A glob such as
    'model.layers.0.*' lists the points that it takes.
    """
    from twinrun.recorder.filter import parse_filter
    from twinrun.recorder.reader import open_capture
    from twinrun.report.listing import chosen

    held = open_capture(capture)
    takes = parse_filter(wanted or "")
    if name is not None:
        # A name may itself hold the characters of a glob, so the exact name is looked for first.
        records = list(chosen(held.records, rank=rank, name=name.__eq__, wanted=takes))
        if records:
            _tensor(held, records, step, _index(at), as_json)
            return
        if not _PATTERN & set(name):
            raise _missing(held, name, rank)
    if at is not None:
        raise UsageError("--at needs the NAME of one tensor.", do=f"twinrun show {capture}")
    listed = chosen(held.records, step=step, rank=rank, name=_glob(name), wanted=takes)
    _listing(held, listed, top, as_json)


def _glob(pattern: str | None) -> Callable[[str], bool]:
    return lambda name: pattern is None or fnmatchcase(name, pattern)


def _listing(held: Capture, records: Iterable[Record], top: int, as_json: bool) -> None:
    from twinrun.report import jsonlines, terminal
    from twinrun.report.capture import capture_page
    from twinrun.report.listing import folded

    if as_json:
        _print(jsonlines.capture_lines(held.path, held.run, held.processes, records))
        return
    page = capture_page(held.path, held.run, held.processes, folded(records), top)
    terminal.show(page, terminal.console(sys.stdout))


def _tensor(
    held: Capture, records: list[Record], step: int | None, at: tuple[int, ...], as_json: bool
) -> None:
    from twinrun.report import jsonlines, terminal
    from twinrun.report.tensor import tensor_page

    steps = {record.step for record in records}
    wanted = min(steps) if step is None else step
    shown = sorted(
        (record for record in records if record.step == wanted),
        key=lambda record: (record.recompute, record.occurrence, record.rank),
    )
    if not shown:
        raise UsageError(
            f"step {wanted} holds no {records[0].name!r}.", expected=f"one of {sorted(steps)}"
        )
    seen = (_seen(held, record) for record in shown)
    if as_json:
        _print(jsonlines.tensor_lines(seen))
        return
    page = tensor_page(list(seen), _values(held, shown[0], at), steps - {wanted})
    terminal.show(page, terminal.console(sys.stdout))


def _seen(held: Capture, record: Record) -> Seen:
    """Statistics as they were recorded, else measured now over the mapped values."""
    from twinrun.report.statistics import statistics
    from twinrun.report.tensor import Seen

    if record.stats is not None or not record.has_payload:
        return Seen(record, record.stats)
    try:
        return Seen(record, statistics(held.tensor(record)))
    finally:
        held.release(record)


def _values(held: Capture, record: Record, at: tuple[int, ...]) -> Iterable[tuple[str, str]]:
    from twinrun.report.values import value_rows

    if not record.has_payload:
        return []
    return value_rows(_inside(held.tensor(record), at), at)


def _inside(tensor: torch.Tensor, at: tuple[int, ...]) -> torch.Tensor:
    sizes = tuple(tensor.shape)
    if len(at) > len(sizes) or any(not -n <= i < n for i, n in zip(at, sizes, strict=False)):
        raise UsageError(
            f"--at {','.join(map(str, at))} is outside the tensor.", seen=f"shape {list(sizes)}"
        )
    return tensor[at] if at else tensor


def _index(text: str | None) -> tuple[int, ...]:
    """An index as ``3,17`` or, pasted from a report, ``[3, 17]``."""
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.strip().strip("[]").split(",") if part.strip())
    except ValueError:
        raise UsageError(
            f"--at {text!r} is not an index.", expected="integers, as in 1,3,17"
        ) from None


def _missing(held: Capture, name: str, rank: int | None) -> TwinrunError:
    names = sorted({record.name for record in held.records})
    if name in names:
        asked = f"--rank {rank} and the filter" if rank is not None else "the filter"
        return UsageError(f"{asked} leave no record of {name!r}.")
    near = get_close_matches(name, names, n=3)
    return UsageError(
        f"{held.path} holds no {name!r}.",
        seen=f"{len(names)} names" if names else "no records at all",
        do=f"did you mean {' or '.join(near)}?" if near else f"twinrun show {held.path} lists them",
    )


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line)
