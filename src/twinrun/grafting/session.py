"""The graft of one process: which points flow where, and what becomes of each of them."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch

from twinrun.errors import PeerError, TwinrunError, UsageError
from twinrun.grafting.exchange import Exchange
from twinrun.grafting.giving import Given, Parcel
from twinrun.grafting.journal import Journal, abs_max, moved
from twinrun.grafting.memory import on_host
from twinrun.grafting.point import B2T, RECEIVER, SENDER, T2B, Holding, Point, Rank
from twinrun.grafting.receiving import PointFailed, Taken
from twinrun.grafting.settings import Settings, split_dims
from twinrun.grafting.transform import (
    Function,
    GraftContext,
    SenderLayout,
    TransformFailed,
    Transforms,
    apply,
)
from twinrun.grafting.values import encode_value
from twinrun.layout.mesh import WORLD, Mesh, parse_axes
from twinrun.recorder.dtypes import NAMES
from twinrun.recorder.filter import Filter, parse_filter
from twinrun.recorder.headings import Sort, facts_of
from twinrun.recorder.payload import look, unseen
from twinrun.recorder.rank import standing

_LASTING = frozenset({"name", "kind", "role", "module", "module_class", "layer", "recompute"})


class Source(Protocol):
    """Where values come from and go to: a live exchange, or a capture."""

    failure: TwinrunError | None

    def give(self, point: Point, holding: Holding, parcel_of: Callable[[int], Parcel]) -> Given: ...

    def take(self, point: Point, holding: Holding, *, whole: bool = False) -> Taken: ...

    def begin(self, step: int) -> None: ...

    def layouts(self, point: Point, senders: tuple[int, ...]) -> list[Holding]: ...

    def world(self, role: str) -> int: ...

    def tell_failed(self, point: Point, why: str) -> None: ...

    def close(self, why: str = "finished", *, drain: bool = True) -> None: ...

    def abandon(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Site:
    """Where in the program a value was seen; what filters and layouts go by.

    ``step`` counts ``tr.step()`` calls, or calls of the outermost module while there are none.
    """

    name: str
    step: int
    kind: str = "activation"
    role: str = "dump"
    module: str = ""
    module_class: str = ""
    dims: str = ""
    mesh: Mapping[str, tuple[int, int]] | None = None
    tags: tuple[tuple[str, Any], ...] = ()
    recompute: bool = False


class Guard:
    """See ``Session.guarding``."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return error is not None and self._session.broke(error)


class Session:
    """Grafts of this process. Thread-safe. Joins the other job when it is first needed.

    Raises into the program only with ``strict``; otherwise what fails is told, counted and left alone.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_source: Callable[[Session, Rank, int], Source] | None = None,
    ) -> None:
        self.settings = settings.check()
        filters = {B2T: settings.b2t, T2B: settings.t2b}
        self._filters: dict[str, Filter] = {
            d: parse_filter(text) for d, text in filters.items() if text
        }
        self._lasting = all(f.reads <= _LASTING for f in self._filters.values())
        self._directions: dict[tuple[Any, ...], str | None] = {}
        self._dims = [split_dims(text) for text in settings.dims]
        self._transforms = Transforms(settings.transforms)
        self._open_source = open_source or _live
        self._source: Source | None = None
        self._journal: Journal | None = None
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, bool], int] = {}
        self._counting = -1
        self._holdings: dict[tuple[Any, ...], Holding] = {}
        self._told: set[str] = set()
        self._ended = ""
        self._closed = False
        self.rank = Rank(settings.role, 0)

    # --- deciding --------------------------------------------------------------------------

    def direction(self, site: Site) -> str | None:
        """b2t, t2b, or None where no filter takes this point; UsageError where both do."""
        key = (site.name, site.kind, site.role, site.module_class, site.recompute)
        if self._lasting:
            try:
                return self._directions[key]
            except KeyError:
                pass
        facts = self._facts(site)
        matching = [d for d, wanted in self._filters.items() if wanted(facts)]
        if len(matching) == 2:
            self._tell_once(
                f"both {self.settings.b2t!r} (--b2t) and {self.settings.t2b!r} (--t2b) match "
                f"{site.name!r}; it can flow one way only"
            )
            raise UsageError(
                f"{site.name!r} matches both directions",
                seen=f"--b2t {self.settings.b2t!r} and --t2b {self.settings.t2b!r}",
                expected="at most one of them to match",
                do="take the point out of one filter with 'and not ...'",
            )
        found = matching[0] if matching else None
        if self._lasting:
            self._directions[key] = found
        return found

    def _facts(self, site: Site) -> dict[str, Any]:
        sort = Sort(
            site.name, site.kind, site.role, site.module, site.module_class, -1, site.tags, (),
            site.dims or None, "", (), 0, site.recompute, torch.uint8, (), "", "",
        )  # fmt: skip
        return facts_of(sort) | {"step": site.step, "rank": self.rank.rank}

    @property
    def over(self) -> bool:
        """Whether nothing is grafted any more."""
        return self._closed or bool(self._ended)

    @property
    def lasting(self) -> bool:
        """Whether the filters look only at what a site always is."""
        return self._lasting

    def asks(self, site: Site) -> bool:
        """Whether a filter takes this point (both do: it will be told as a failure)."""
        try:
            return not self.over and self.direction(site) is not None
        except UsageError:
            return True

    def receives(self, site: Site) -> bool:
        """Whether this side takes the other's value here."""
        try:
            direction = self.direction(site)
        except UsageError:
            return False
        return direction is not None and RECEIVER[direction] == self.settings.role

    def indifferent(self, *sites: Site) -> bool:
        """Whether no filter takes any of these points."""
        return not any(map(self.asks, sites))

    # --- grafting --------------------------------------------------------------------------

    def start(self) -> Source:
        """Join the other job, or open the capture; at once the second time."""
        with self._lock:
            if self._source is None:
                stand = standing()
                self.rank = Rank(self.settings.role, stand.rank)
                self._source = self._open_source(self, self.rank, stand.world_size)
            return self._source

    @property
    def journal(self) -> Journal:
        self.start()
        return self.journal_of()

    def journal_of(self) -> Journal:
        """The journal, made when the source is about to be opened."""
        if self._journal is None:
            directory = Path(self.settings.journal) if self.settings.journal else None
            self._journal = Journal(self.rank, self.settings.log, directory)
        return self._journal

    def begin(self, step: int) -> None:
        """A step begins: ranks that wait for a point of an earlier one learn that it will not come."""
        if self.over:
            return
        try:
            self.start().begin(step)
        except TwinrunError as error:
            self._over(error)

    def pass_through(self, site: Site, value: Any, *, extras: Any = None) -> tuple[bool, Any]:
        """Send ``value``, or wait for the other run's: (whether it was replaced, the value to use).

        A replaced tensor is detached, on the same device, of the same shape and dtype; a DTensor stays
        one. ``value`` itself is never changed.
        """
        if self.over:
            return False, value
        try:
            direction = self.direction(site)
        except UsageError as error:
            return self._overlap(site, value, error)
        if direction is None:
            return False, value
        self.start()
        with self._lock:
            point = self._point(site)
        if site.recompute:
            self._tell_once("recomputed forwards (activation checkpointing) are not grafted")
            return False, value
        try:
            with unseen():
                if SENDER[direction] == self.settings.role:
                    self._give(site, point, direction, value, extras)
                    return False, value
                new = self._take(site, point, direction, value)
            return True, _dressed(new, value)
        except PointFailed as error:
            self._fail(point, direction, error)
        except TransformFailed as error:
            self._fail(point, direction, PointFailed(str(error)), transform=error)
        except TwinrunError as error:
            self._over(error)
        return False, value

    def fail(self, site: Site, why: str) -> None:
        """A point that was asked for and cannot be grafted here."""
        with self._lock:
            point = self._point(site)
        self._fail(point, self.direction(site) or "", PointFailed(why))

    def close(self, *, crashed: bool = False) -> None:
        """Leave the graft once what is wanted was taken, and print the summary; idempotent."""
        with self._lock:
            source, self._source = self._source, None
        if source is None or self._journal is None:
            return
        source.close("crashed" if crashed else "finished", drain=not crashed)
        if source.failure is not None:
            self._ended = self._ended or source.failure.summary
        self._journal.summary(self._ended)
        self._journal.close()
        self._closed = True

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connections without a word."""
        source, self._source = self._source, None
        if source is not None:
            source.abandon()

    def guarding(self) -> Guard:
        """A block around work inside the program: errors of ours end the graft, not the program.

        With ``strict``, what failed is raised.
        """
        return Guard(self)

    def broke(self, error: BaseException) -> bool:
        """An error inside a guarded block; whether the program shall be spared it."""
        if isinstance(error, TwinrunError):
            return not self.settings.strict
        if not isinstance(error, Exception):
            return False
        trace = "".join(traceback.format_exception(error))
        self._over(PeerError(f"grafting broke down: {type(error).__name__}: {error}", seen=trace))
        return True

    # --- inside ----------------------------------------------------------------------------

    def _point(self, site: Site) -> Point:
        if site.step != self._counting:
            self._counting = site.step
            self._counts.clear()
        key = (site.name, site.recompute)
        occurrence = self._counts.get(key, -1) + 1
        self._counts[key] = occurrence
        return Point(site.step, site.name, occurrence)

    def _holding(
        self, site: Site, dims: str, mesh: Any, shape: tuple[int, ...], dtype: str
    ) -> Holding:
        key = (site.name, dims, site.kind, shape, dtype, tuple(mesh.items()) if mesh else ())
        found = self._holdings.get(key)
        if found is None:
            axes = tuple((axis, at, size) for axis, (at, size) in (mesh or self._mesh()).items())
            found = Holding(
                site.name, dims or self._dims_of(site.name), axes, shape, dtype, site.kind
            )
            self._holdings[key] = found
        return found

    def _dims_of(self, name: str) -> str:
        for role, glob, dims in self._dims:
            if role in ("", self.settings.role) and fnmatchcase(name, glob):
                return dims
        return ""

    def _mesh(self) -> Mapping[str, tuple[int, int]]:
        sizes = parse_axes(self.settings.mesh)
        if sizes:
            return Mesh.at(self.rank.rank, sizes)
        world = standing().world_size
        return {WORLD: (self.rank.rank, world)} if world > 1 else {}

    def _held(self, site: Site, value: Any) -> tuple[Holding, torch.Tensor | None]:
        """How this rank holds ``value``, and its own memory where it is a tensor."""
        if not isinstance(value, torch.Tensor):
            return replace(
                self._holding(site, "", None, (), type(value).__name__), kind="value"
            ), None
        seen = look(value)
        if seen.refusal:
            raise PointFailed(f"{site.name} cannot be grafted: {seen.refusal}")
        dims = site.dims or seen.dims or ""
        mesh = site.mesh or seen.mesh
        shape = tuple(seen.shape)
        return self._holding(site, dims, mesh, shape, NAMES[seen.dtype]), seen.tensor

    def _give(self, site: Site, point: Point, direction: str, value: Any, extras: Any) -> None:
        holding, tensor = self._held(site, value)
        host = None if tensor is None else on_host(tensor)
        trees, beside = encode_value(
            [None if tensor is not None else value, extras], torch.is_tensor
        )
        plain, told = trees["l"]
        carried = tuple(on_host(look(t).tensor).contiguous() for t in beside)
        source = self.start()
        given = source.give(
            point, holding, lambda number: Parcel(point, number, host, plain, told, carried)
        )
        where = " ".join(f"{axis} {at}/{size}" for axis, at, size in holding.mesh)
        facts = {
            "layout": where or holding.dims or "whole",
            "to": _receivers(given.receivers),
            "shape": list(holding.shape),
            "dtype": holding.dtype,
            "bytes": given.nbytes,
            "channel": given.channel,
        }
        stats = {"abs_max": abs_max(host)} if self.journal.full and host is not None else {}
        self.journal.note_sent(point, direction, facts, stats)

    def _take(self, site: Site, point: Point, direction: str, value: Any) -> Any:
        holding, tensor = self._held(site, value)
        transform = self._transforms.of(site.name)
        taken = self.start().take(point, holding, whole=transform is not None)
        if transform is None:
            assert taken.tensor is not None and tensor is not None
            host = taken.tensor
            new: Any = host if tensor.device.type == "cpu" else host.to(tensor.device)
            self._note_taken(point, direction, taken, tensor, host)
        else:
            new = self._transformed(transform, taken, site, point, direction, value, tensor)
            after = on_host(new) if isinstance(new, torch.Tensor) else None
            self._note_taken(point, direction, taken, tensor, after)
        return new

    def _transformed(
        self, transform: tuple[str, Function], taken: Taken, site: Site, point: Point, direction: str,
        value: Any, tensor: torch.Tensor | None,
    ) -> Any:  # fmt: skip
        device = tensor.device if tensor is not None else torch.device("cpu")
        source = self.start()
        held = source.layouts(point, taken.senders)
        context = GraftContext(
            name=point.name,
            step=point.step,
            occurrence=point.occurrence,
            tags=dict(site.tags),
            direction=direction,
            received=[_to(device, plain if t is None else t) for _, t, plain, _ in taken.whole],
            layouts=tuple(
                SenderLayout(rank, h.dims, h.coordinates(), h.shape, h.dtype)
                for rank, h in zip(taken.senders, held, strict=True)
            ),
            extras=[_to(device, extras) for *_, extras in taken.whole],
            # A copy: a transform that writes into it and then raises must leave the program's own alone.
            target=value if tensor is None else tensor.detach().clone(),
            rank=self.rank.rank,
            baseline_ranks=source.world("baseline"),
            target_ranks=source.world("target"),
        )
        return apply(*transform, context, value if tensor is None else tensor)

    def _note_taken(
        self,
        point: Point,
        direction: str,
        taken: Taken,
        before: torch.Tensor | None,
        after: torch.Tensor | None,
    ) -> None:
        stats = {}
        if self.journal.full and before is not None and after is not None:
            host = on_host(before)
            stats = {
                "before_abs_max": abs_max(host),
                "after_abs_max": abs_max(after),
                "moved": moved(host, after),
            }
        facts = {
            "senders": list(taken.senders),
            "note": taken.note,
            "bytes": taken.nbytes,
            "waited_s": taken.waited_s,
        }
        self.journal.note_received(point, direction, facts, stats)

    def _fail(
        self,
        point: Point,
        direction: str,
        error: TwinrunError,
        transform: TransformFailed | None = None,
    ) -> None:
        why = str(error).removeprefix(f"{point}: ")
        trace = transform.trace if transform is not None else ""
        self.journal.note_failed(
            point, direction, why, transform=transform is not None, trace=trace
        )
        source = self.start()
        source.tell_failed(point, error.summary)
        if self.settings.strict:
            self._ended = error.summary
            raise error

    def _overlap(self, site: Site, value: Any, error: UsageError) -> tuple[bool, Any]:
        with self._lock:
            point = self._point(site)
        self._fail(point, "both", error)
        return False, value

    def _over(self, error: TwinrunError) -> None:
        if not self._ended:
            self._ended = error.summary
            self.journal.say(f"graft ended, the program goes on without it: {error}")
        if self.settings.strict:
            raise error

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.journal.say(text)


def _receivers(count: int) -> str:
    if count == 0:
        return "kept until asked for"
    return f"{count} rank{'s' if count != 1 else ''}"


def _live(session: Session, me: Rank, world: int) -> Source:
    return Exchange(session.settings, me, world, session.journal_of().note_mixed)


def _to(device: torch.device, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [_to(device, item) for item in value]
    if isinstance(value, dict):
        return {key: _to(device, item) for key, item in value.items()}
    return value


def _dressed(new: Any, original: Any) -> Any:
    """A new local tensor as what the original was: a DTensor of the same placements, else itself."""
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is None or not isinstance(original, distributed.DTensor):
        return new
    with torch.no_grad():
        return distributed.DTensor.from_local(
            new, original.device_mesh, original.placements, run_check=False,
            shape=original.shape, stride=original.stride(),
        )  # fmt: skip
