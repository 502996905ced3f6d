"""A capture in the place of the baseline: the same layouts, filters, transforms and logs, no other job."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch

from twinrun.errors import CaptureError, TwinrunError, UsageError
from twinrun.grafting.giving import Given, Parcel
from twinrun.grafting.layouts import Layouts
from twinrun.grafting.memory import on_host
from twinrun.grafting.plan import Plan, Refusal, Side
from twinrun.grafting.planning import make_plan, whole_values
from twinrun.grafting.point import BASELINE, TARGET, Holding, Point, Rank
from twinrun.grafting.receiving import Taken
from twinrun.grafting.settings import Settings, split_dims
from twinrun.grafting.taking import Assembly, PointFailed, castable, unequal_replicas
from twinrun.layout.mesh import WORLD
from twinrun.recorder.dtypes import BY_NAME
from twinrun.recorder.reader import open_capture
from twinrun.recorder.record import Record

if TYPE_CHECKING:
    from twinrun.grafting.session import Session
    from twinrun.grafting.site import Source

AHEAD_BYTES = 64 << 20
"""How far the disk is read ahead of the program."""


class Replay:
    """Values from a capture, taken as if its run were there. CaptureError, UsageError.

    Reads ahead of the program in the order of the capture, on a thread of its own.
    """

    def __init__(self, settings: Settings, me: Rank, world: int) -> None:
        self.failure: TwinrunError | None = None
        self._settings = settings
        self._me = me
        self._worlds = {TARGET: world}
        self._capture = open_capture(settings.source)
        if me.role != TARGET:
            raise UsageError("a capture stands in for the baseline: this side must be the target")
        records = [r for r in self._capture.records if not r.recompute]
        if not records:
            raise CaptureError(f"{settings.source} holds no records", do="see twinrun show")
        self._worlds[BASELINE] = max(r.rank for r in records) + 1
        announced = settings.baseline_ranks
        if announced is not None and announced != self._worlds[BASELINE]:
            raise UsageError(
                f"the capture {settings.source} has {self._worlds[BASELINE]} ranks, but {announced} were announced"
            )
        self._dims = [
            (glob, dims) for role, glob, dims in map(split_dims, settings.dims) if role != TARGET
        ]
        self._layouts = Layouts.load(settings.layouts)
        self._points: dict[Point, dict[int, Record]] = defaultdict(dict)
        for record in records:
            point = Point(record.step, record.name, record.occurrence)
            self._points[point].setdefault(record.rank, record)
        self._order = {point: at for at, point in enumerate(self._points)}
        self._ahead = _Ahead(self._capture, list(self._points.values()))

    def give(self, point: Point, holding: Holding, parcel_of: Callable[[int], Parcel]) -> Given:
        """Refused: nothing flows into a capture."""
        raise PointFailed(f"{point}: nothing can be sent into a capture")

    def take(self, point: Point, holding: Holding, *, whole: bool = False) -> Taken:
        """The captured value of ``point``, as boxes in ``holding``'s layout or whole."""
        records = self._points.get(point)
        if not records:
            raise PointFailed(
                f"{point}: the capture {self._settings.source} does not hold it",
                do=self._nearest(point),
            )
        self._ahead.reached(self._order[point])
        held = {rank: self._holding(record) for rank, record in records.items()}
        absent = frozenset(range(self._worlds[BASELINE])) - set(held)
        senders = Side(BASELINE, self._worlds[BASELINE], held, absent)
        others = frozenset(range(self._worlds[TARGET])) - {self._me.rank}
        receivers = Side(TARGET, self._worlds[TARGET], {self._me.rank: holding}, others)
        plan = whole_values(senders) if whole else make_plan(self._me.rank, senders, receivers)
        if not isinstance(plan, Plan):
            reason = (
                plan.reason if isinstance(plan, Refusal) else f"not in the capture: {plan.missing}"
            )
            raise PointFailed(f"{point}: {reason}", do=getattr(plan, "do", "") or None)
        return self._read(point, plan, records, holding, whole)

    def begin(self, step: int) -> None:
        """Nobody waits for this run."""

    def layouts(self, point: Point, senders: tuple[int, ...]) -> list[Holding]:
        return [self._holding(self._points[point][rank]) for rank in senders]

    def world(self, role: str) -> int:
        return self._worlds[role]

    def tell_failed(self, point: Point, why: str) -> None:
        """Nobody to tell."""

    def close(self, why: str = "finished", *, drain: bool = True) -> None:
        self._ahead.stop()

    def abandon(self) -> None:
        """In a forked child: the reading thread is the parent's."""

    # --- inside ----------------------------------------------------------------------------

    def _holding(self, record: Record) -> Holding:
        dims = record.dims or self._dims_of(record.name)
        world = self._worlds[BASELINE]
        mesh = record.mesh or ({WORLD: (record.rank, world)} if world > 1 else {})
        axes = tuple((axis, at, size) for axis, (at, size) in mesh.items())
        return Holding(record.name, dims, axes, tuple(record.shape), record.dtype, record.kind)

    def _dims_of(self, name: str) -> str:
        given = next((dims for glob, dims in self._dims if fnmatchcase(name, glob)), "")
        return given or self._layouts.of(BASELINE, name)

    def _fetch(self, record: Record) -> torch.Tensor:
        if not record.has_payload:
            raise PointFailed(
                f"{record.name}: rank {record.rank} of the capture has no values, only statistics"
            )
        return on_host(self._capture.tensor(record))

    def _read(
        self, point: Point, plan: Plan, records: dict[int, Record], holding: Holding, whole: bool
    ) -> Taken:
        senders = tuple(pull.sender for pull in plan.pulls)
        note = f"{plan.note}, from {self._settings.source}"
        if whole:
            values: list[tuple[int, torch.Tensor | None, Any, Any]] = [
                (rank, self._fetch(records[rank]).clone(), None, None) for rank in senders
            ]
            nbytes = sum(records[rank].nbytes for rank in senders)
            return Taken(None, senders, note, 0.0, values, nbytes)
        assembly = Assembly(plan, holding.shape, BY_NAME[holding.dtype])
        nbytes = 0
        unequal = []
        for pull in plan.pulls:
            record = records[pull.sender]
            if not castable(BY_NAME[record.dtype], BY_NAME[holding.dtype]):
                raise PointFailed(
                    f"{point}: {record.dtype} in the capture cannot stand in for {holding.dtype}"
                )
            source = self._fetch(record)
            for part in pull.parts:
                if not assembly.put([part], _Boxes(source[part.source.slices]), source.dtype):
                    unequal.append(pull.sender)
                nbytes += part.source.volume * source.element_size()
            self._capture.release(record)
        if unequal:
            raise unequal_replicas(point, unequal, BASELINE)
        return Taken(assembly.finish(), senders, note, 0.0, [], nbytes)

    def _nearest(self, point: Point) -> str:
        from difflib import get_close_matches

        steps = {p.step for p in self._points if p.name == point.name}
        if steps:
            return (
                f"it is there in steps {min(steps)} to {max(steps)}; give both runs the same steps"
            )
        near = get_close_matches(point.name, {p.name for p in self._points}, n=1)
        return (
            f"the nearest name it holds is {near[0]}"
            if near
            else "see twinrun show for what it holds"
        )


class _Boxes:
    """One box of a mapped tensor, read as a message would be."""

    def __init__(self, box: torch.Tensor) -> None:
        self._box = box
        self.left = box.numel() * box.element_size()
        self.device = box.device

    def read_tensor(self, into: torch.Tensor, dtype: torch.dtype, *, add: bool = False) -> None:
        from twinrun.grafting.memory import blocks, fill

        self.left = 0
        if not add:
            fill(into, self._box)
            return
        for index, _ in blocks(tuple(into.shape)):
            into[index].add_(self._box[index])


class _Ahead:
    """Touches the pages of what comes next, so that the program finds them in memory."""

    def __init__(self, capture: Any, points: list[dict[int, Record]]) -> None:
        self._capture = capture
        self._points = points
        self._at = 0
        self._done = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="twinrun-graft-ahead", daemon=True)
        self._thread.start()

    def reached(self, at: int) -> None:
        """The program is at point number ``at``."""
        with self._changed:
            self._at = at
            self._changed.notify()

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and not self._due():
                    self._changed.wait()
                if self._stopped:
                    return
                self._done = max(self._done, self._at)
                records = list(self._points[self._done].values())
                self._done += 1
            for record in records:
                self._touch(record)

    def _due(self) -> bool:
        if self._done >= len(self._points):
            return False
        ahead = self._points[self._at + 1 : self._done]
        return sum(r.nbytes for held in ahead for r in held.values()) < AHEAD_BYTES

    def _touch(self, record: Record) -> None:
        if not record.has_payload or not record.nbytes:
            return
        try:
            flat = self._capture.tensor(record).reshape(-1).view(torch.uint8)
            flat[:: 4096 * max(1, flat.numel() // (4096 * 30000))].sum()
        except (TwinrunError, OSError, RuntimeError):
            return  # the program will meet the same error and tell it with its point


def open_capture_source(session: Session, me: Rank, world: int) -> Source:
    """What a session opens in place of a live exchange."""
    return Replay(session.settings, me, world)
