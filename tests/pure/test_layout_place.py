"""Rules of placing shards as one logical tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from layout_worlds import assembled, worlds

from twinrun.errors import LayoutError
from twinrun.layout import Box, Mesh, Piece, fits, parse_axes, parse_dims, place


def at(rank: int, axes: str) -> Mesh:
    return Mesh.at(rank, parse_axes(axes))


def even(axes: str, shape: tuple[int, ...]) -> dict[int, tuple[Mesh, tuple[int, ...]]]:
    sizes = parse_axes(axes)
    return {
        rank: (Mesh.at(rank, sizes), shape) for rank in range(int(np.prod(list(sizes.values()))))
    }


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_assembling_what_was_sharded_gives_the_tensor_back(world):
    """assemble(shard(x)) == x for any mesh, dims, uneven sizes, zigzag, nesting and pending sum."""
    placement = place(world.dims, world.shards)
    assert placement.shape == world.whole.shape
    assert np.array_equal(assembled(placement, world.locals), world.whole)


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_pieces_cover_each_rank_and_replicas_are_equal(world):
    """Every element of a rank's own tensor lies in one piece; ranks called replicas hold the same."""
    placement = place(world.dims, world.shards)
    for rank, pieces in placement.pieces.items():
        assert sum(piece.local.volume for piece in pieces) == world.locals[rank].size
        assert all(piece.local.shape == piece.logical.shape for piece in pieces)
    for first, *others in placement.replicas:
        assert all(np.array_equal(world.locals[first], world.locals[o]) for o in others)
    for ranks in placement.partial:
        assert len({placement.pieces[rank] for rank in ranks}) == 1


def test_nested_axes_are_outermost_first():
    """t[cp,sp]: cp splits the dim, sp splits each of its parts, whatever order the mesh has."""
    placement = place(parse_dims("t[cp,sp]"), even("sp=2,cp=2", (1,)))
    starts = {rank: pieces[0].logical.starts[0] for rank, pieces in placement.pieces.items()}
    assert starts == {0: 0, 1: 2, 2: 1, 3: 3}


def test_zigzag_gives_a_rank_one_chunk_from_each_end():
    """Rank i of n owns chunks i and 2n-1-i; neighbouring chunks come as one piece."""
    placement = place(parse_dims("t[cp:zigzag]"), even("cp=2", (4,)))
    assert placement.pieces[0] == (
        Piece(Box((0,), (2,)), Box((0,), (2,))),
        Piece(Box((2,), (4,)), Box((6,), (8,))),
    )
    assert placement.pieces[1] == (Piece(Box((0,), (4,)), Box((2,), (6,))),)


def test_packed_sequences_are_cut_one_by_one():
    """t:packed=4+8 with zigzag over two ranks: each sequence gives each rank both its ends."""
    placement = place(parse_dims("t[cp:zigzag] # t:packed=4+8"), even("cp=2", (6,)))
    ranges = [(p.logical.starts[0], p.logical.stops[0]) for p in placement.pieces[0]]
    assert ranges == [(0, 1), (3, 6), (10, 12)]
    with pytest.raises(LayoutError, match="packed sequences do not fit"):
        place(parse_dims("t[cp:zigzag] # t:packed=6+6"), even("cp=2", (6,)))
    with pytest.raises(LayoutError, match="other sizes than its ranks"):
        shards = {0: (at(0, "cp=2"), (5,)), 1: (at(1, "cp=2"), (7,))}
        place(parse_dims("t[cp:zigzag] # t:packed=4+8"), shards)


def test_unnamed_axes_make_replicas_and_data_axes_make_groups():
    """tp unnamed: replicas. dp unnamed: other samples, unless the caller says there are none."""
    placement = place(parse_dims("t h"), even("dp=2,tp=2", (3, 4)))
    assert [group.data for group in placement.groups] == [(("dp", 0),), (("dp", 1),)]
    assert placement.replicas == ((0, 1), (2, 3))
    with pytest.raises(LayoutError, match="different samples"):
        _ = placement.shape
    whole = place(parse_dims("t h"), even("dp=2,tp=2", (3, 4)), data_axes=frozenset())
    assert whole.replicas == ((0, 1, 2, 3),) and whole.shape == (3, 4)


def test_samples_of_different_length_are_no_error():
    """Each data coordinate has its own logical shape."""
    shards = {0: (at(0, "dp=2"), (3, 4)), 1: (at(1, "dp=2"), (5, 4))}
    assert [g.shape for g in place(parse_dims("t h"), shards).groups] == [(3, 4), (5, 4)]


def test_facts_after_the_hash_change_what_axes_mean():
    """dp:replicated makes dp replicas; dp:=moe_dp moves the samples to moe_dp; b[dp] joins them."""
    shards = even("dp=2,tp=2", (3, 4))
    assert place(parse_dims("t h # dp:replicated"), shards).replicas == ((0, 1, 2, 3),)
    assert place(parse_dims("t h # dp:=tp"), shards).replicas == ((0, 2), (1, 3))
    assert place(parse_dims("b[dp] h"), shards).shape == (6, 4)


def test_a_pending_sum_lists_its_addends_in_rank_order():
    """partial has each set of ranks to add; replicas of an addend stay replicas."""
    placement = place(parse_dims("t h[tp:partial]"), even("tp=2,ep=2", (3, 4)))
    assert placement.partial == ((0, 2), (1, 3))
    assert placement.replicas == ((0, 1), (2, 3))
    assert placement.group.cells[0].addends == ((0, 1), (2, 3))


def test_neighbours_may_share_a_part():
    """h[tp:repeat2] on four ranks: two parts, each held by two neighbours that are replicas."""
    placement = place(parse_dims("h[tp:repeat2]"), even("tp=4", (3,)))
    assert placement.shape == (6,) and placement.replicas == ((0, 1), (2, 3))
    with pytest.raises(LayoutError, match="divides 4"):
        place(parse_dims("h[tp:repeat3]"), even("tp=4", (3,)))


def test_an_axis_that_no_rank_has_is_of_size_one():
    """A run without tensor parallelism reads the annotation of one with it."""
    assert place(parse_dims("t h[tp]"), {0: (Mesh(), (3, 4))}).shape == (3, 4)
    assert place(parse_dims("t h[tp]"), even("dp=2", (3, 4))).groups[1].shape == (3, 4)


def test_ranks_without_coordinates_stand_on_world():
    """With no mesh at all, the axis is `world` in rank order."""
    shards = {rank: (Mesh(), (2,)) for rank in (3, 5)}
    assert place(parse_dims("h[world]"), shards).pieces[5][0].logical == Box((2,), (4,))
    assert place(parse_dims("h"), shards).replicas == ((3, 5),)


REFUSED = [
    ("h[tp]", {0: "tp=0/2", 1: "tp=0/2"}, (4,), "ranks 0 and 1 claim the same box of 'x'"),
    ("h[tp]", {0: "", 1: ""}, (4,), "ranks 0 and 1 claim the same box of 'x'"),
    ("h[tp]", {0: "tp=0/3", 2: "tp=2/3"}, (4,), "no rank holds tp=1/3"),
    ("h[tp]", {0: "tp=0/999999999999"}, (4,), "a gap"),
    ("h[tp:partial]", {0: "tp=0/2"}, (4,), "no rank holds tp=1/2"),
    ("h[tp]", {0: "tp=0/2", 1: "ep=0/2"}, (4,), "ranks 0 and 1 disagree on axis 'tp'"),
    ("h[tp]", {0: "tp=0/2", 1: "tp=1/3"}, (4,), "ranks 0 and 1 disagree on axis 'tp'"),
    ("h", {0: "dp=0/2", 1: "tp=0/2"}, (4,), "ranks 0 and 1 disagree on axis 'dp'"),
]


@pytest.mark.parametrize(("dims", "meshes", "shape", "told"), REFUSED)
def test_shards_that_cannot_be_one_tensor_are_refused_by_rank(dims, meshes, shape, told):
    """Twins, gaps and axes that disagree are LayoutErrors that name the ranks."""
    shards = {rank: (Mesh.parse(text), shape) for rank, text in meshes.items()}
    with pytest.raises(LayoutError, match=told):
        place(parse_dims(dims), shards, name="x")


def test_replicas_and_addends_of_unequal_size_are_refused():
    """Ranks at one place of a dim hold one size; so do the addends of a sum."""
    shards = {0: (at(0, "tp=2"), (4, 3)), 1: (at(1, "tp=2"), (5, 3))}
    with pytest.raises(LayoutError, match="dim 'a' is 4 on rank 0 and 5 on rank 1"):
        place(parse_dims("a h[tp]"), shards)
    with pytest.raises(LayoutError, match="different sizes"):
        place(parse_dims("a[tp:partial] h"), shards)
    with pytest.raises(LayoutError, match="no rank holds this tensor"):
        place(parse_dims("a"), {})


def test_empty_and_scalar_tensors_have_a_place():
    """A 0-dim tensor is one element; a rank with no elements has no pieces."""
    assert place(parse_dims("[tp:partial]"), even("tp=2", ())).pieces[1] == (
        Piece(Box((), ()), Box((), ())),
    )
    shards = {0: (at(0, "tp=2"), (0, 4)), 1: (at(1, "tp=2"), (3, 4))}
    placement = place(parse_dims("t[tp] h"), shards)
    assert placement.pieces[0] == () and placement.shape == (3, 4)


def test_absurd_meshes_end_in_an_error_not_in_a_hang():
    """Coordinates come from files: axes by the hundred, or of 10**18 ranks, are refused or harmless."""
    axes = [f"a{i}" for i in range(500)]
    dims = parse_dims(f"h[{','.join(axes)}]")
    assert place(dims, {0: (Mesh(dict.fromkeys(axes, (0, 1))), (4,))}).shape == (4,)
    huge = {rank: (Mesh.of(tp=(rank, 10**17)), (4,)) for rank in range(2)}
    with pytest.raises(LayoutError, match="a gap"):
        place(parse_dims("h[tp]"), huge)
    assert fits(huge, (8,)) == ()
