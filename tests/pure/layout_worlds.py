"""Random worlds for layout properties: meshes, dims texts, uneven shards, cut with index arrays.

The cutting here knows nothing of boxes: every rank's part is an array of logical indices for each
dim, so that it can stand as an independent witness of what `place` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from hypothesis import strategies as st

from twinrun.layout import Dim, Dims, Mesh, Modifier, Placement

NAMES = ("b", "s", "h")
AXES = ("tp", "cp", "ep", "sp")


@dataclass
class World:
    """One tensor and how it was cut: rank -> mesh, rank -> its own array (addends included)."""

    dims: Dims
    whole: np.ndarray
    meshes: dict[int, Mesh]
    locals: dict[int, np.ndarray]

    @property
    def shards(self):
        return {rank: (mesh, self.locals[rank].shape) for rank, mesh in self.meshes.items()}


@st.composite
def layouts(draw, ndim: int):
    """A Dims over `ndim` dims and the sizes of all mesh axes, in mesh order."""
    axes = draw(st.permutations(AXES))[: draw(st.sampled_from([0, 1, 2, 2, 3]))]
    sizes = {axis: draw(st.integers(1, 4)) for axis in axes}
    on: list[list[Modifier]] = [[] for _ in range(ndim)]
    pending, replicated = [], []
    for axis in axes:
        roles = ["pending", "replicated", "unnamed"] + ["dim"] * (3 if ndim else 0)
        role = draw(st.sampled_from(roles))
        if role == "dim":
            zigzag, partial = draw(st.booleans()), draw(st.sampled_from([False, False, True]))
            repeat = draw(
                st.sampled_from([r for r in range(1, sizes[axis] + 1) if sizes[axis] % r == 0])
            )
            on[draw(st.integers(0, ndim - 1))].append(Modifier(axis, zigzag, partial, repeat))
        elif role == "pending":
            pending.append(axis)
        elif role == "replicated":
            replicated.append(axis)
    dims = tuple(Dim((NAMES[i],), tuple(on[i])) for i in range(ndim))
    return Dims(dims, tuple(pending), None, tuple(replicated)), sizes


def _draw_lengths(draw, modifiers, sizes, depth=0):
    """A tree of local sizes: leaves drawn, sums above a split, one size under a pending sum."""
    if depth == len(modifiers):
        return draw(st.integers(0, 4))
    count = sizes[modifiers[depth].axis] // modifiers[depth].repeat
    if modifiers[depth].partial:
        return [_draw_lengths(draw, modifiers, sizes, depth + 1)] * count
    return [_draw_lengths(draw, modifiers, sizes, depth + 1) for _ in range(count)]


def _length(tree, modifiers, depth=0):
    if depth == len(modifiers):
        return tree
    below = [_length(child, modifiers, depth + 1) for child in tree]
    return below[0] if modifiers[depth].partial else sum(below)


def _zigzag(indices, lengths):
    chunks = [n - n // 2 for n in lengths] + [n // 2 for n in reversed(lengths)]
    parts = np.split(indices, np.cumsum(chunks)[:-1])
    return [np.concatenate([parts[i], parts[-1 - i]]) for i in range(len(lengths))]


def _even_zigzag(indices, count):
    parts = np.array_split(indices, 2 * count)
    return [np.concatenate([parts[i], parts[-1 - i]]) for i in range(count)]


def _indices(indices, tree, modifiers, coordinates, depth=0):
    """Logical indices that the rank at `coordinates` holds of one dim, in local order."""
    if depth == len(modifiers):
        return indices
    modifier, at = modifiers[depth], coordinates[depth]
    lengths = [_length(child, modifiers, depth + 1) for child in tree]
    if modifier.partial:
        below = np.concatenate(_even_zigzag(indices, len(tree))) if modifier.zigzag else indices
    elif modifier.zigzag:
        below = _zigzag(indices, lengths)[at]
    else:
        below = np.split(indices, np.cumsum(lengths)[:-1])[at]
    return _indices(below, tree[at], modifiers, coordinates, depth + 1)


def cut(draw, dims: Dims, sizes: dict[str, int], whole: np.ndarray | None) -> World:
    """Cut a tensor (or a fresh one of random size) as `dims` say; pending sums get random addends."""
    trees = [_draw_lengths(draw, dim.modifiers, sizes) for dim in dims]
    lengths = [_length(tree, dim.modifiers) for tree, dim in zip(trees, dims, strict=True)]
    if whole is None:
        whole = np.arange(int(np.prod(lengths)), dtype=np.int64).reshape(lengths)
    return _shards(dims, sizes, trees, whole)


def _shards(dims, sizes, trees, whole) -> World:
    repeat = dict.fromkeys(sizes, 1)
    repeat |= {m.axis: m.repeat for dim in dims for m in dim.modifiers}
    rng = np.random.default_rng(0)
    keys = list(product(*(range(sizes[axis] // repeat[axis]) for axis in dims.partial)))
    addends = {key: rng.integers(-99, 99, whole.shape) for key in keys[1:]}
    addends[keys[0]] = whole - sum(addends.values(), np.zeros_like(whole))
    meshes, parts = {}, {}
    for rank, place in enumerate(product(*(range(n) for n in sizes.values()))):
        at = dict(zip(sizes, place, strict=True))
        meshes[rank] = Mesh({axis: (at[axis], sizes[axis]) for axis in sizes})
        index = [
            _indices(
                np.arange(n), tree, dim.modifiers, [at[m.axis] // m.repeat for m in dim.modifiers]
            )
            for n, tree, dim in zip(whole.shape, trees, dims, strict=True)
        ]
        value = addends[tuple(at[axis] // repeat[axis] for axis in dims.partial)]
        parts[rank] = np.asarray(value[np.ix_(*index)] if index else value)
    return World(dims, whole, meshes, parts)


def even_trees(draw, dims: Dims, sizes: dict[str, int], shape):
    """Sizes for a tensor of a given shape: every split is random but sums to what is above it."""
    return [_split_tree(draw, dim.modifiers, sizes, n) for dim, n in zip(dims, shape, strict=True)]


def _split_tree(draw, modifiers, sizes, total, depth=0):
    if depth == len(modifiers):
        return total
    count = sizes[modifiers[depth].axis] // modifiers[depth].repeat
    if modifiers[depth].partial:
        return [_split_tree(draw, modifiers, sizes, total, depth + 1)] * count
    cuts = sorted(draw(st.integers(0, total)) for _ in range(count - 1))
    lengths = np.diff([0, *cuts, total]).tolist()
    return [_split_tree(draw, modifiers, sizes, n, depth + 1) for n in lengths]


@st.composite
def worlds(draw):
    """A tensor of random size under a random layout."""
    dims, sizes = draw(layouts(draw(st.integers(0, 3))))
    return cut(draw, dims, sizes, None)


@st.composite
def world_pairs(draw):
    """One tensor under two random layouts."""
    first = draw(worlds())
    dims, sizes = draw(layouts(first.whole.ndim))
    trees = even_trees(draw, dims, sizes, first.whole.shape)
    return first, _shards(dims, sizes, trees, first.whole)


def assembled(placement: Placement, parts: dict[int, np.ndarray]) -> np.ndarray:
    """The logical tensor of the only group, each element written exactly once."""
    group = placement.group
    out = np.zeros(group.shape, np.int64)
    written = np.zeros(group.shape, np.int64)
    for cell in group.cells:
        for piece in cell.pieces:
            for holders in cell.addends:
                out[piece.logical.slices] += parts[holders[0]][piece.local.slices]
            written[piece.logical.slices] += 1
    assert (written == 1).all()
    return out
