"""Which boxes one receiver takes from which sender, worked out from what everybody holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

from twinrun.errors import DimsError, LayoutError
from twinrun.grafting.point import Holding
from twinrun.layout.box import Box
from twinrun.layout.dims import DATA_AXES, Dims
from twinrun.layout.mesh import Mesh
from twinrun.layout.parse import parse_dims
from twinrun.layout.place import place
from twinrun.layout.placement import Placement
from twinrun.layout.routes import routes

Holdings = Mapping[int, Holding]


@dataclass(frozen=True, slots=True)
class Part:
    """One box: where it lies at the sender, where it goes, whether it is added to what is there."""

    source: Box
    wanted: Box
    add: bool = False


@dataclass(frozen=True, slots=True)
class Pull:
    """What the receiver takes from one sender; no parts means its whole value."""

    sender: int
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one receiver takes at a point, in the order in which sums are added up."""

    pulls: tuple[Pull, ...]
    zeros: tuple[Box, ...] = ()
    note: str = ""

    @property
    def sums(self) -> bool:
        return any(part.add for pull in self.pulls for part in pull.parts)


@dataclass(frozen=True, slots=True)
class Wait:
    """Not known yet, and what is missing."""

    missing: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """No plan can be made, and why, and what to do."""

    reason: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """What is known of one job at a point.

    ``held``: rank -> holding. ``absent``: ranks that certainly do not hold it. ``world``: its size.
    """

    role: str
    world: int
    held: Holdings
    absent: frozenset[int] = frozenset()

    @property
    def complete(self) -> bool:
        """Whether every rank is known to hold it or not to."""
        return not self.open_ranks

    @property
    def open_ranks(self) -> list[int]:
        """Ranks of which nothing is known yet, stages of another pipeline position left out."""
        known = set(self.held) | self.absent
        stages = {h.coordinates().get("pp", (0, 1))[0] for h in self.held.values()}
        grid = next((h.mesh for h in self.held.values() if h.mesh), ())
        return [
            rank
            for rank in range(self.world)
            if rank not in known and not _other_stage(rank, self.world, grid, stages)
        ]


def _other_stage(
    rank: int, world: int, grid: tuple[tuple[str, int, int], ...], stages: set[int]
) -> bool:
    """Whether a full grid puts ``rank`` at a pipeline position that holds the point nowhere."""
    sizes = {axis: size for axis, _, size in grid}
    if sizes.get("pp", 1) == 1 or prod(sizes.values()) != world:
        return False
    return Mesh.at(rank, sizes)["pp"][0] not in stages


def whole_values(senders: Side) -> Plan | Wait | Refusal:
    """Every sender's whole value, in rank order, once it is known who they are (for a transform)."""
    if not senders.complete:
        return Wait(_ranks(senders.role, senders.open_ranks))
    if not senders.held:
        return Refusal(f"no {senders.role} rank holds it")
    return Plan(tuple(Pull(rank) for rank in sorted(senders.held)), note="to a transform")


def make_plan(me: int, senders: Side, receivers: Side) -> Plan | Wait | Refusal:
    """The plan of receiver rank ``me``, whose own holding is in ``receivers``."""
    mine = receivers.held[me]
    if not senders.held:
        if senders.complete:
            return Refusal(f"no {senders.role} rank holds it")
        return Wait(_ranks(senders.role, senders.open_ranks))
    texts = {h.dims for h in senders.held.values() if h.dims}
    if len(texts) > 1:
        return Refusal(
            f"the {senders.role} ranks lay it out differently: {', '.join(map(repr, sorted(texts)))}"
        )
    theirs = next(iter(texts), "")
    if not theirs and senders.world == 1 and mine.dims:
        theirs = _unsharded(mine.dims)
    own = mine.dims or (_unsharded(theirs) if theirs and receivers.world == 1 else "")
    if theirs and own:
        return _by_layout(me, parse_dims(theirs), parse_dims(own), senders, receivers)
    return _without_layout(me, senders, receivers)


def _unsharded(dims: str) -> str:
    return " ".join(dim.name for dim in parse_dims(dims))


def _without_layout(me: int, senders: Side, receivers: Side) -> Plan | Wait | Refusal:
    mine = receivers.held[me]
    if senders.world == receivers.world:
        if me in senders.held:
            return _alike(me, senders.held[me], mine, "rank to rank")
        if me in senders.open_ranks:
            return Wait(f"{senders.role} rank {me}")
    if not senders.complete:
        return Wait(_ranks(senders.role, senders.open_ranks))
    if len(senders.held) == 1:
        ((only, theirs),) = senders.held.items()
        return _alike(only, theirs, mine, "whole to every rank (inferred)")
    if not receivers.complete:
        return Wait(_ranks(receivers.role, receivers.open_ranks))
    if len(senders.held) == len(receivers.held):
        at = sorted(receivers.held).index(me)
        sender = sorted(senders.held)[at]
        return _alike(sender, senders.held[sender], mine, "holder to holder")
    return Refusal(
        f"{len(senders.held)} {senders.role} ranks hold it and {len(receivers.held)} {receivers.role} "
        f"ranks want it, and no layout is known ({_both(senders, mine)})",
        _advice(mine),
    )


def _alike(sender: int, theirs: Holding, mine: Holding, note: str) -> Plan | Refusal:
    if theirs.shape != mine.shape:
        return Refusal(
            f"the shapes differ and no layout is known: {sender} sends {theirs}, here is {mine}",
            _advice(mine),
        )
    box = Box.whole(mine.shape)
    return Plan((Pull(sender, (Part(box, box),)),), note=note)


def _advice(mine: Holding) -> str:
    names = " ".join("tbshdnmk"[i : i + 1] or f"d{i}" for i in range(len(mine.shape)))
    return (
        f"give both sides a layout, for instance --graft-dims '{mine.name}={names}[tp]' with "
        f"--mesh tp=N, or a --transform"
    )


def _by_layout(
    me: int, theirs: Dims, own: Dims, senders: Side, receivers: Side
) -> Plan | Wait | Refusal:
    mine = receivers.held[me]
    known = (
        frozenset()
        if mine.kind == "parameter" or mine.name.endswith(":parameter.grad")
        else DATA_AXES
    )
    chosen = _nearest_cover(me, theirs, senders, mine, known)
    if not isinstance(chosen, dict):
        return chosen
    try:
        source = place(theirs, _shards(chosen), data_axes=frozenset(), name=mine.name)
        wanted = _wanted(me, own, source.shape, receivers, known)
        if isinstance(wanted, Wait):
            return wanted
        taken = [r for r in routes(source, wanted) if r.receiver == me]
    except (LayoutError, DimsError) as error:
        return Refusal(str(error.summary), error.do or "")
    parts: dict[int, list[Part]] = {}
    zeros = []
    for route in taken:
        if route.sender is None:
            zeros.append(route.wanted)
        # Sums are added up in rank order, whatever the order of arrival.
        for at, sender in enumerate(
            sorted(route.adds) or [s for s in (route.sender,) if s is not None]
        ):
            parts.setdefault(sender, []).append(Part(route.source, route.wanted, add=at > 0))
    ordered = sorted(parts.items())
    return Plan(
        tuple(Pull(sender, tuple(held)) for sender, held in ordered),
        tuple(zeros),
        f"{theirs} -> {own}",
    )


def _nearest_cover(
    me: int, dims: Dims, senders: Side, mine: Holding, known: frozenset[str]
) -> dict[int, Holding] | Wait | Refusal:
    """One sender for every coordinate of the axes that matter, among those of the receiver's samples."""
    axes = list(dict.fromkeys(dims.named_axes))
    data = dims.data_axes(known)
    here = mine.coordinates()
    sizes: dict[str, int] = {}
    best: dict[tuple[int, ...], int] = {}
    for rank, holding in sorted(
        senders.held.items(), key=lambda item: (abs(item[0] - me), item[0])
    ):
        at = holding.coordinates()
        if any(axis in here and axis in at and at[axis] != here[axis] for axis in data):
            continue
        missing = [axis for axis in axes if axis not in at]
        if missing and senders.world > 1:
            return Refusal(
                f"{senders.role} rank {rank} does not say where it stands on axis {missing[0]!r} of dims {str(dims)!r}",
                f"name the mesh of the {senders.role} (--mesh {missing[0]}=N)",
            )
        sizes.update({axis: at[axis][1] for axis in axes if axis in at})
        best.setdefault(tuple(at.get(axis, (0, 1))[0] for axis in axes), rank)
    cells = prod(sizes.values()) if best else 1
    if len(best) < cells:
        if senders.complete:
            return Refusal(
                f"{len(best)} of the {cells} boxes of dims {str(dims)!r} are held by {senders.role} ranks"
            )
        return Wait(_ranks(senders.role, senders.open_ranks))
    return {rank: senders.held[rank] for rank in best.values()}


def _shards(held: Holdings) -> dict[int, tuple[Mesh, tuple[int, ...]]]:
    return {rank: (Mesh(h.coordinates()), h.shape) for rank, h in held.items()}


def _wanted(
    me: int, dims: Dims, shape: tuple[int, ...], receivers: Side, known: frozenset[str]
) -> Placement | Wait:
    """The receivers' placement: from this rank alone where the shards are even, else from all of them."""
    mine = receivers.held[me]
    alone = place(dims, _evenly(me, mine, dims), data_axes=frozenset(), name=mine.name)
    if alone.shape == shape:
        return alone
    peers = _nearest_cover(me, dims, receivers, mine, known)
    if isinstance(peers, Wait):
        return peers
    if isinstance(peers, Refusal):
        raise LayoutError(peers.reason, do=peers.do)
    at = {axis: mine.coordinates().get(axis) for axis in dims.named_axes}
    peers = {
        rank: h
        for rank, h in peers.items()
        if {axis: h.coordinates().get(axis) for axis in dims.named_axes} != at
    }
    return place(dims, _shards({**peers, me: mine}), data_axes=frozenset(), name=mine.name)


def _evenly(me: int, mine: Holding, dims: Dims) -> dict[int, tuple[Mesh, tuple[int, ...]]]:
    """This rank and made-up neighbours of the same shape at all other coordinates."""
    here = {axis: place for axis, place in mine.coordinates().items() if axis in dims.named_axes}
    found: dict[int, tuple[Mesh, tuple[int, ...]]] = {}
    grids: Iterable[tuple[int, ...]] = product(*(range(size) for _, size in here.values()))
    for number, at in enumerate(grids):
        axes = {axis: (c, size) for c, (axis, (_, size)) in zip(at, here.items(), strict=True)}
        found[me if axes == here else -1 - number] = (Mesh(axes), mine.shape)
    return found


def _ranks(role: str, ranks: list[int]) -> str:
    return f"{role} rank{'s' if len(ranks) != 1 else ''} {', '.join(map(str, ranks))}"


def _both(senders: Side, mine: Holding) -> str:
    theirs = next(iter(senders.held.values()))
    return f"{senders.role} {theirs}; here {mine}"
