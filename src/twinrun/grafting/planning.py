"""Which boxes one receiver takes from which sender, worked out from what everybody holds."""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import product
from math import prod

from twinrun.errors import DimsError, LayoutError
from twinrun.grafting.inference import only_fit
from twinrun.grafting.plan import Holdings, Part, Plan, Pull, Refusal, Side, Wait
from twinrun.grafting.point import Holding
from twinrun.layout.box import Box
from twinrun.layout.dims import DATA_AXES, Dims
from twinrun.layout.fits import unnamed
from twinrun.layout.mesh import Mesh
from twinrun.layout.parse import parse_dims
from twinrun.layout.place import place
from twinrun.layout.placement import Placement
from twinrun.layout.routes import Route, routes


def whole_values(senders: Side) -> Plan | Wait | Refusal:
    """Every sender's whole value, in rank order, once it is known who they are (for a transform)."""
    if not senders.complete:
        return senders.awaited
    if not senders.held:
        return Refusal(f"no {senders.role} rank holds it")
    return Plan(tuple(Pull(rank) for rank in sorted(senders.held)), note="to a transform")


def make_plan(me: int, senders: Side, receivers: Side) -> Plan | Wait | Refusal:
    """The plan of receiver rank ``me``, whose own holding is in ``receivers``."""
    mine = receivers.held[me]
    if not senders.held:
        if senders.complete:
            return Refusal(f"no {senders.role} rank holds it")
        return senders.awaited
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
    if senders.world == receivers.world:
        if me in senders.open_ranks:
            return Wait(f"{senders.role} rank {me}")
        if me in senders.held and senders.held[me].shape == mine.shape:
            return _alike(me, mine, "rank to rank")
    if theirs:
        return _own_by_shape(me, parse_dims(theirs), senders, receivers)
    if own:
        return _theirs_by_shape(me, parse_dims(own), senders, receivers)
    return _without_layout(me, senders, receivers)


def _unsharded(dims: str) -> str:
    return " ".join(dim.name for dim in parse_dims(dims))


def _without_layout(me: int, senders: Side, receivers: Side) -> Plan | Wait | Refusal:
    mine = receivers.held[me]
    if not senders.complete:
        return senders.awaited
    if len(senders.held) == 1:
        ((only, theirs),) = senders.held.items()
        if theirs.shape == mine.shape:
            return _alike(only, mine, "whole to every rank (inferred)")
        return _own_by_shape(me, unnamed(len(theirs.shape)), senders, receivers)
    plain = unnamed(len(mine.shape))
    if receivers.world == 1:
        return _theirs_by_shape(me, plain, senders, receivers)
    if not receivers.complete:
        return receivers.awaited
    if len(senders.held) == len(receivers.held):
        sender = sorted(senders.held)[sorted(receivers.held).index(me)]
        if senders.held[sender].shape == mine.shape:
            return _alike(sender, mine, "holder to holder")
    if len({h.shape for side in (senders, receivers) for h in side.held.values()}) == 1:
        return _by_layout(me, plain, plain, senders, receivers, inferred=True, check=True)
    return Refusal(
        f"{len(senders.held)} {senders.role} ranks hold it and {len(receivers.held)} {receivers.role} "
        f"ranks want it, and no layout is known ({_both(senders, mine)})",
        _advice(mine),
    )


def _own_by_shape(me: int, theirs: Dims, senders: Side, receivers: Side) -> Plan | Wait | Refusal:
    """This rank's layout by its shape, all ranks of its mesh taken to hold as much as it does."""
    mine = receivers.held[me]
    known = _data_axes(mine)
    chosen = _nearest_cover(me, theirs, senders, mine, known)
    if not isinstance(chosen, dict):
        return chosen
    stage = set(mine.coordinates()) - {"pp"}
    try:
        whole = place(theirs, _shards(chosen), data_axes=frozenset(), name=mine.name).shape
        own = only_fit(_evenly(me, mine, stage), whole, known, theirs)
    except (LayoutError, DimsError) as error:
        return Refusal(f"{error.summary} ({_both(senders, mine)})", error.do or _advice(mine))
    return _by_layout(me, theirs, own, senders, receivers, inferred=True)


def _theirs_by_shape(me: int, own: Dims, senders: Side, receivers: Side) -> Plan | Wait | Refusal:
    """The senders' layout by their shapes; ranks that these call replicas are held against each other."""
    mine = receivers.held[me]
    known = _data_axes(mine)
    if not senders.complete:
        return senders.awaited
    try:
        whole = place(own, _evenly(me, mine, own.named_axes), data_axes=frozenset()).shape
        theirs = only_fit(_shards(senders.held), whole, known, own)
    except (LayoutError, DimsError) as error:
        return Refusal(f"{error.summary} ({_both(senders, mine)})", error.do or _advice(mine))
    return _by_layout(me, theirs, own, senders, receivers, inferred=True, check=True)


def _alike(sender: int, mine: Holding, note: str) -> Plan:
    box = Box.whole(mine.shape)
    return Plan((Pull(sender, (Part(box, box),)),), note=note)


def _advice(mine: Holding) -> str:
    names = " ".join("tbshdnmk"[i : i + 1] or f"d{i}" for i in range(len(mine.shape)))
    return (
        f"give both sides a layout, for instance --graft-dims '{mine.name}={names}[tp]' with "
        f"--mesh tp=N, or a --transform"
    )


def _by_layout(
    me: int, theirs: Dims, own: Dims, senders: Side, receivers: Side,
    *, inferred: bool = False, check: bool = False,
) -> Plan | Wait | Refusal:  # fmt: skip
    mine = receivers.held[me]
    known = _data_axes(mine)
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
    pulls, zeros = _pulls(taken)
    if check:
        pulls += _checks(pulls, theirs, senders, mine, known)
    note = f"{theirs} -> {own}" + (" (inferred)" if inferred else "")
    return Plan(tuple(pulls), tuple(zeros), note)


def _pulls(taken: Iterable[Route]) -> tuple[list[Pull], list[Box]]:
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
    return [Pull(sender, tuple(held)) for sender, held in sorted(parts.items())], zeros


def _checks(
    pulls: Iterable[Pull], dims: Dims, senders: Side, mine: Holding, known: frozenset[str]
) -> list[Pull]:
    """The same boxes from every other rank that the layout calls a replica, to be held against them."""

    def cell(rank: int) -> list[tuple[int, int]]:
        at = senders.held[rank].coordinates()
        return [at.get(axis, (0, 1)) for axis in dims.named_axes]

    taken = {pull.sender: pull.parts for pull in pulls}
    return [
        Pull(rank, tuple(Part(part.source, part.wanted, check=True) for part in parts))
        for rank, holding in sorted(senders.held.items())
        if rank not in taken and _same_samples(dims, holding, mine, known)
        for twin, parts in taken.items()
        if cell(twin) == cell(rank)
    ]


def _same_samples(dims: Dims, theirs: Holding, mine: Holding, known: frozenset[str]) -> bool:
    here, at = mine.coordinates(), theirs.coordinates()
    data = dims.data_axes(known)
    return not any(axis in here and axis in at and at[axis] != here[axis] for axis in data)


def _data_axes(mine: Holding) -> frozenset[str]:
    whole = mine.kind == "parameter" or mine.name.endswith(":parameter.grad")
    return frozenset() if whole else DATA_AXES


def _nearest_cover(
    me: int, dims: Dims, senders: Side, mine: Holding, known: frozenset[str]
) -> dict[int, Holding] | Wait | Refusal:
    """One sender for every coordinate of the axes that matter, among those of the receiver's samples."""
    axes = list(dict.fromkeys(dims.named_axes))
    sizes: dict[str, int] = {}
    best: dict[tuple[int, ...], int] = {}
    for rank, holding in sorted(
        senders.held.items(), key=lambda item: (abs(item[0] - me), item[0])
    ):
        at = holding.coordinates()
        if not _same_samples(dims, holding, mine, known):
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
        return senders.awaited
    return {rank: senders.held[rank] for rank in best.values()}


def _shards(held: Holdings) -> dict[int, tuple[Mesh, tuple[int, ...]]]:
    return {rank: (Mesh(h.coordinates()), h.shape) for rank, h in held.items()}


def _wanted(
    me: int, dims: Dims, shape: tuple[int, ...], receivers: Side, known: frozenset[str]
) -> Placement | Wait:
    """The receivers' placement: from this rank alone where the shards are even, else from all of them."""
    mine = receivers.held[me]
    alone = place(dims, _evenly(me, mine, dims.named_axes), data_axes=frozenset(), name=mine.name)
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


def _evenly(
    me: int, mine: Holding, axes: Container[str]
) -> dict[int, tuple[Mesh, tuple[int, ...]]]:
    """This rank and made-up neighbours of the same shape at all other coordinates on ``axes``."""
    here = {axis: place for axis, place in mine.coordinates().items() if axis in axes}
    found: dict[int, tuple[Mesh, tuple[int, ...]]] = {}
    grids: Iterable[tuple[int, ...]] = product(*(range(size) for _, size in here.values()))
    for number, at in enumerate(grids):
        grid = {axis: (c, size) for c, (axis, (_, size)) in zip(at, here.items(), strict=True)}
        found[me if grid == here else -1 - number] = (Mesh(grid), mine.shape)
    return found


def _both(senders: Side, mine: Holding) -> str:
    theirs = next(iter(senders.held.values()))
    return f"{senders.role} {theirs}; here {mine}"
