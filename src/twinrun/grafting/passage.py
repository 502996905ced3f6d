"""A value on its way: described, given, taken, transformed, and written down."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch

from twinrun.grafting.device_stats import abs_max, replaced
from twinrun.grafting.giving import Parcel
from twinrun.grafting.journal import Journal
from twinrun.grafting.layouts import Layouts
from twinrun.grafting.memory import on_host, settled
from twinrun.grafting.point import RECEIVER, Holding, Point, Rank
from twinrun.grafting.reach import receives_into
from twinrun.grafting.receiving import Taken
from twinrun.grafting.settings import Settings, split_dims
from twinrun.grafting.site import Site, Source
from twinrun.grafting.taking import PointFailed
from twinrun.grafting.transform import Function, GraftContext, SenderLayout, Transforms, apply
from twinrun.grafting.values import encode_value
from twinrun.layout.mesh import WORLD, Mesh, parse_axes
from twinrun.recorder.dtypes import NAMES
from twinrun.recorder.payload import address_of, look
from twinrun.recorder.rank import standing

Held = tuple[Holding, torch.Tensor | None]
"""How a rank holds a value, and its own memory where it is a tensor."""


class Passage:
    """What a session does with the values of one rank, once the other end is there."""

    def __init__(self, settings: Settings, me: Rank, source: Source, journal: Journal) -> None:
        self._settings = settings
        self._me = me
        self._from = source
        self._journal = journal
        self._dims = [split_dims(text) for text in settings.dims]
        self._layouts = Layouts.load(settings.layouts)
        receives = any(
            text and RECEIVER[d] == me.role
            for d, text in (("b2t", settings.b2t), ("t2b", settings.t2b))
        )
        # A sender's environment need not hold the receiver's functions.
        self._transforms = Transforms(settings.transforms if receives else ())
        self._holdings: dict[tuple[Any, ...], Holding] = {}

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
            if role in ("", self._settings.role) and fnmatchcase(name, glob):
                return dims
        return self._layouts.of(self._settings.role, name)

    def _mesh(self) -> Mapping[str, tuple[int, int]]:
        sizes = parse_axes(self._settings.mesh)
        if sizes:
            return Mesh.at(self._me.rank, sizes)
        world = standing().world_size
        return {WORLD: (self._me.rank, world)} if world > 1 else {}

    def held(self, site: Site, value: Any) -> Held:
        """How this rank holds ``value``, and its own memory where it is a tensor."""
        if not isinstance(value, torch.Tensor):
            return replace(
                self._holding(site, "", None, (), type(value).__name__), kind="value"
            ), None
        if address_of(value, anywhere=True):  # the way of nearly every tensor
            kind = NAMES[value.dtype]
            return self._holding(site, site.dims, site.mesh, tuple(value.shape), kind), value
        seen = look(value)
        if seen.refusal:
            raise PointFailed(f"{site.name} cannot be grafted: {seen.refusal}")
        dims = site.dims or seen.dims or ""
        mesh = site.mesh or seen.mesh
        shape = tuple(seen.shape)
        return self._holding(site, dims, mesh, shape, NAMES[seen.dtype]), seen.tensor

    def give(
        self, site: Site, point: Point, direction: str, value: Any, held: Held, extras: Any
    ) -> None:
        """Send a value with its extras; what it says is written down."""
        holding, tensor = held
        own = None if tensor is None else settled(tensor)
        plain = told = None
        carried: tuple[torch.Tensor, ...] = ()
        if tensor is None or extras is not None:
            trees, beside = encode_value(
                [None if tensor is not None else value, extras], torch.is_tensor
            )
            plain, told = trees["l"]
            carried = tuple(on_host(look(t).tensor).contiguous() for t in beside)
        given = self._from.give(
            point, holding, lambda number: Parcel(point, number, own, plain, told, carried)
        )
        facts = {
            "layout": holding.described,
            "to": _receivers(given.receivers),
            "shape": list(holding.shape),
            "dtype": holding.dtype,
            "bytes": given.nbytes,
            "channel": given.channel,
        }
        stats = {"abs_max": abs_max(own)} if self._journal.full and own is not None else {}
        self._journal.note_sent(point, direction, facts, stats)

    def take(self, site: Site, point: Point, direction: str, value: Any, held: Held) -> Any:
        """The other run's value in the place of ``value``; a DTensor's comes as its local tensor."""
        holding, tensor = held
        transform = self._transforms.of(site.name)
        if tensor is not None:
            receives_into(tensor)
        taken = self._from.take(point, holding, whole=transform is not None)
        if transform is None:
            assert taken.tensor is not None and tensor is not None
            new: Any = taken.tensor.to(tensor.device)
            self._note_taken(point, direction, taken, tensor, new)
        else:
            new = self._transformed(transform, taken, site, point, direction, value, tensor)
            after = new if isinstance(new, torch.Tensor) else None
            self._note_taken(point, direction, taken, tensor, after)
        return new

    def _transformed(
        self, transform: tuple[str, Function], taken: Taken, site: Site, point: Point, direction: str,
        value: Any, tensor: torch.Tensor | None,
    ) -> Any:  # fmt: skip
        device = tensor.device if tensor is not None else torch.device("cpu")
        source = self._from
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
            rank=self._me.rank,
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
        if self._journal.full and before is not None and after is not None:
            stats = replaced(before, after)
        facts = {
            "senders": list(taken.senders),
            "note": taken.note,
            "bytes": taken.nbytes,
            "waited_s": taken.waited_s,
        }
        self._journal.note_received(point, direction, facts, stats)


def _receivers(count: int) -> str:
    if count == 0:
        return "kept until asked for"
    return f"{count} rank{'s' if count != 1 else ''}"


def _to(device: torch.device, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [_to(device, item) for item in value]
    if isinstance(value, dict):
        return {key: _to(device, item) for key, item in value.items()}
    return value


def dressed(new: Any, original: Any) -> Any:
    """A new local tensor as what the original was: a DTensor of the same placements, else itself."""
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is None or not isinstance(original, distributed.DTensor):
        return new
    with torch.no_grad():
        return distributed.DTensor.from_local(
            new, original.device_mesh, original.placements, run_check=False,
            shape=original.shape, stride=original.stride(),
        )  # fmt: skip
