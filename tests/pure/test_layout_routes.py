"""Rules of bringing one layout's tensor into another layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from layout_worlds import world_pairs

from twinrun.errors import LayoutError
from twinrun.layout import Box, Mesh, Route, parse_axes, parse_dims, place, routes


def even(axes: str, shape: tuple[int, ...], dims: str):
    sizes = parse_axes(axes)
    count = int(np.prod(list(sizes.values())))
    return place(parse_dims(dims), {rank: (Mesh.at(rank, sizes), shape) for rank in range(count)})


def carry(plan, parts, wanted_parts):
    """What each receiver holds once every route was carried out, and how often it was written."""
    got = {rank: np.zeros_like(part) for rank, part in wanted_parts.items()}
    written = {rank: np.zeros(part.shape, int) for rank, part in wanted_parts.items()}
    for route in plan:
        box = np.zeros(route.wanted.shape, np.int64)
        for sender in route.adds or (() if route.sender is None else (route.sender,)):
            box = box + parts[sender][route.source.slices]
        got[route.receiver][route.wanted.slices] = box
        written[route.receiver][route.wanted.slices] += 1
    return got, written


@settings(max_examples=300, deadline=None)
@given(world_pairs())
def test_routes_deliver_exactly_the_wanted_boxes(pair):
    """Every wanted element is written once; the receivers then hold the same logical tensor."""
    source, wanted = pair
    have, want = place(source.dims, source.shards), place(wanted.dims, wanted.shards)
    got, written = carry(routes(have, want), source.locals, wanted.locals)
    assert all((counts == 1).all() for counts in written.values())
    group = want.group
    for cell in group.cells:
        for piece in cell.pieces:
            value = sum(got[ranks[0]][piece.local.slices] for ranks in cell.addends)
            assert np.array_equal(value, wanted.whole[piece.logical.slices])
        for ranks in cell.addends:
            assert all(np.array_equal(got[ranks[0]], got[rank]) for rank in ranks)


def test_the_same_layout_sends_each_rank_its_own():
    """Between equal layouts every rank is served by its own number, one box each."""
    layout = even("dp=2,tp=2", (3, 4), "b[dp] h[tp]")
    whole = Box((0, 0), (3, 4))
    assert routes(layout, layout) == tuple(Route(r, r, whole, whole) for r in range(4))


def test_of_several_replicas_the_nearest_sends():
    """The receiver's own number if it holds the box, else the nearest by position."""
    replicated, one = even("tp=4", (8,), "h"), even("tp=8", (8,), "h")
    assert [route.sender for route in routes(one, replicated)] == [0, 1, 2, 3]
    assert [route.sender for route in routes(replicated, one)] == [0, 1, 2, 3, 2, 2, 3, 3]


def test_a_pending_sum_is_added_by_rank_order_on_the_way():
    """Every member of the partial group is listed; two equal pending sums stay pending."""
    partial, whole = even("tp=3", (8,), "h[tp:partial]"), even("tp=1", (8,), "h")
    box = Box((0,), (8,))
    assert routes(partial, whole) == (Route(0, 0, box, box, adds=(0, 1, 2)),)
    assert [(r.sender, r.adds) for r in routes(partial, partial)] == [(0, ()), (1, ()), (2, ())]
    assert [(r.sender, r.adds) for r in routes(whole, partial)] == [(0, ()), (None, ()), (None, ())]


def test_groups_of_samples_are_routed_to_their_like():
    """Data coordinates pair the groups, whatever each side calls the axis."""
    one, other = even("dp=2,tp=2", (4,), "t[tp]"), even("data=2", (8,), "t")
    assert {(r.sender, r.receiver) for r in routes(one, other)} == {(0, 0), (1, 0), (2, 1), (3, 1)}


def test_tensors_that_are_not_the_same_are_refused():
    """Another logical shape, or samples without a partner, are LayoutErrors."""
    with pytest.raises(LayoutError, match=r"\[8\] cannot be sent into shape \[6\]"):
        routes(even("tp=2", (4,), "h[tp]"), even("tp=2", (3,), "h[tp]"))
    with pytest.raises(LayoutError, match="different samples"):
        routes(even("dp=2", (4,), "h"), even("dp=3", (4,), "h"))
