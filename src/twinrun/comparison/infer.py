"""Layouts found from shapes and data where nothing states them.

Inference never makes a verdict better: it looks at one side's own shards and at the other side's
shape, never at the other side's values; it keeps the order of ranks; and what it returns is the
only layout that fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from twinrun.comparison.assemble import SLICE_BYTES, boxes, itemsize, read
from twinrun.comparison.inference import Candidate, Inference, NoFit
from twinrun.comparison.replicas import check_replicas
from twinrun.comparison.shards import Fetch, Shard, fetcher, held
from twinrun.errors import DimsError, LayoutError
from twinrun.layout import DATA_AXES, WORLD, Dims, Placement, fits, pending, place, unnamed
from twinrun.numerics.bits import same_bits

__all__ = ["Candidate", "Inference", "NoFit", "infer", "infer_pair"]


def infer(
    shards: Mapping[int, Shard],
    whole_shape: tuple[int, ...] | None,
    *,
    data_axes: frozenset[str] = DATA_AXES,
    like: Dims | None = None,
) -> Inference | NoFit:
    """How these shards make a tensor of ``whole_shape``, the other side's logical shape.

    Each axis of the mesh is replicated (bits must be equal), or splits one dim in rank order, or,
    being a data axis, holds other samples (groups, each of ``whole_shape``). ``whole_shape`` None:
    only equal bits on all ranks fit. Give ``data_axes=frozenset()`` for parameters; ``like`` lends
    the names of its dims. Reads every shard once or twice in slices.
    """
    if not shards:
        return NoFit("no rank holds this tensor")
    wanted = whole_shape if whole_shape is not None else next(iter(shards.values())).shape
    try:
        layouts = fits(held(shards), wanted, data_axes=data_axes, like=like)
    except (LayoutError, DimsError) as error:
        return NoFit(error.summary)
    if whole_shape is None:
        layouts = tuple(found for found in layouts if not found.dims.named_axes)
    if not layouts:
        return NoFit(_why_none(shards, wanted, data_axes))
    try:
        found = _judged(layouts, shards, data_axes)
    except LayoutError as error:  # parts of several dtypes, or another shape than was recorded
        return NoFit(error.summary)
    if whole_shape is None and isinstance(found, Inference) and found.differences:
        return NoFit("the ranks hold different bits, and nothing tells how they belong together")
    return found


def infer_pair(
    baseline: Mapping[int, Shard],
    target: Mapping[int, Shard],
    *,
    data_axes: frozenset[str] = DATA_AXES,
) -> tuple[Inference, Inference] | NoFit:
    """Layouts of two sides of which neither is annotated.

    In this order: all ranks of both sides hold equal bits and one shape (replicated); both sides
    have the same coordinates and shapes (compared coordinate by coordinate, each its own group);
    exactly one logical shape that both sides can make. Else NoFit.
    """
    if not baseline or not target:
        return NoFit("no rank holds this tensor")
    copies = _both_copies(baseline, target, data_axes)
    if copies is not None:
        return copies
    if _coordinates(baseline) == _coordinates(target):
        return _by_coordinate(baseline), _by_coordinate(target)
    try:
        shapes = _shapes_of(baseline, data_axes) & _shapes_of(target, data_axes)
    except (LayoutError, DimsError) as error:
        return NoFit(error.summary)
    return _joint(sorted(shapes), baseline, target, data_axes)


def _judged(
    layouts: Sequence[Placement], shards: Mapping[int, Shard], data_axes: frozenset[str]
) -> Inference | NoFit:
    """Of the layouts that fit by shape, the one whose replicas are equal."""
    fetch = fetcher(shards)
    checked = [(layout, tuple(check_replicas(layout, fetch))) for layout in layouts]
    agreeing = [layout for layout, differences in checked if not differences]
    if len(agreeing) == 1 or (agreeing and _same_tensors(agreeing, fetch)):
        return Inference(agreeing[0], _why(agreeing[0], len(layouts)))
    if agreeing:
        return NoFit(f"{len(agreeing)} layouts fit", _texts(agreeing))
    plain = [(layout, found) for layout, found in checked if not _repeats(layout.dims)]
    if len(plain) != 1:
        return NoFit("no layout fits: ranks that should be equal differ", _texts(layouts))
    layout, differences = plain[0]
    candidates = _candidates(layout, shards, data_axes)
    return Inference(layout, "the only layout of these shapes", differences, candidates)


def _candidates(
    layout: Placement, shards: Mapping[int, Shard], data_axes: frozenset[str]
) -> tuple[Candidate, ...]:
    """Pending sums over as few axes as explain every difference; the sum over all always does."""
    fetch = fetcher(shards)
    sums = list(pending(layout, held(shards), data_axes))
    fitting = [found for found in sums if not check_replicas(found, fetch)]
    return tuple(Candidate(found) for found in fitting)


def _both_copies(
    baseline: Mapping[int, Shard], target: Mapping[int, Shard], data_axes: frozenset[str]
) -> tuple[Inference, Inference] | None:
    if len({shard.shape for shard in (*baseline.values(), *target.values())}) != 1:
        return None
    first, second = (infer(side, None, data_axes=data_axes) for side in (baseline, target))
    if isinstance(first, NoFit) or isinstance(second, NoFit):
        return None
    return first, second


def _coordinates(shards: Mapping[int, Shard]) -> object:
    """What must be the same on both sides to compare them coordinate by coordinate."""
    places = [(shard.mesh, shard.shape) for _, shard in sorted(shards.items())]
    if all(not mesh for mesh, _ in places):
        return tuple(places)
    return frozenset(places) if len({mesh for mesh, _ in places}) == len(places) else object()


def _by_coordinate(shards: Mapping[int, Shard]) -> Inference:
    """Every coordinate its own group: what a rank holds is compared with its counterpart's."""
    axes = frozenset(axis for shard in shards.values() for axis in shard.mesh) | {WORLD}
    dims = unnamed(len(next(iter(shards.values())).shape))
    placement = place(dims, held(shards), data_axes=axes)
    return Inference(placement, "the same coordinates and shapes on both sides")


def _shapes_of(shards: Mapping[int, Shard], data_axes: frozenset[str]) -> set[tuple[int, ...]]:
    return {
        group.shape for p in fits(held(shards), None, data_axes=data_axes) for group in p.groups
    }


def _joint(
    shapes: Iterable[tuple[int, ...]],
    baseline: Mapping[int, Shard],
    target: Mapping[int, Shard],
    data_axes: frozenset[str],
) -> tuple[Inference, Inference] | NoFit:
    found: list[tuple[Inference, Inference]] = []
    for shape in shapes:
        first = infer(baseline, shape, data_axes=data_axes)
        second = infer(target, shape, data_axes=data_axes)
        if isinstance(first, Inference) and isinstance(second, Inference):
            found.append((first, second))
    clean = [pair for pair in found if not pair[0].differences and not pair[1].differences]
    for pairs in (clean, found):
        if len(pairs) == 1:
            return pairs[0]
    told = f"{len(found) or 'no'} logical shapes fit both sides"
    return NoFit(
        f"{told}: {_shapes(baseline)} and {_shapes(target)}",
        tuple(
            f"{list(a.placement.groups[0].shape)}: {a.dims_text} | {b.dims_text}" for a, b in found
        ),
    )


def _same_tensors(layouts: Sequence[Placement], fetch: Fetch) -> bool:
    first = layouts[0]
    return all(
        len(other.groups) == len(first.groups)
        and all(
            a.shape == b.shape
            and all(
                same_bits(read(a, box, fetch), read(b, box, fetch))
                for box in boxes(a.shape, SLICE_BYTES // itemsize(a, fetch))
            )
            for a, b in zip(first.groups, other.groups, strict=True)
        )
        for other in layouts[1:]
    )


def _why(layout: Placement, tried: int) -> str:
    if not layout.dims.named_axes:
        equal = "all ranks hold the same bits" if layout.replicas else "each rank holds the whole"
        return equal if len(layout.pieces) > 1 else "one rank holds the whole"
    return "the only layout of these shapes" + (" whose replicas are equal" if tried > 1 else "")


def _why_none(
    shards: Mapping[int, Shard], wanted: tuple[int, ...], data_axes: frozenset[str]
) -> str:
    """What the ranks' coordinates lack, if that is it, else that the shapes do not add up."""
    names = unnamed(len(next(iter(shards.values())).shape))
    ranks = {rank: (mesh, (1,) * len(names)) for rank, (mesh, _) in held(shards).items()}
    try:
        place(names, ranks, data_axes=data_axes)
    except LayoutError as error:
        return "; ".join(filter(None, (error.summary, error.seen, error.do)))
    return f"no split of dims in rank order makes {list(wanted)} from {_shapes(shards)}"


def _repeats(dims: Dims) -> bool:
    return any(m.repeat > 1 for dim in dims for m in dim.modifiers)


def _texts(layouts: Iterable[Placement]) -> tuple[str, ...]:
    return tuple(str(layout.dims) for layout in layouts)


def _shapes(shards: Mapping[int, Shard]) -> str:
    """The ranks' shapes in short: ``4 x [2, 8]`` or each one."""
    shapes = [str(list(shard.shape)) for _, shard in sorted(shards.items())]
    if len(set(shapes)) == 1:
        return f"{len(shapes)} x {shapes[0]}"
    return ", ".join(shapes[:8]) + (", ..." if len(shapes) > 8 else "")
