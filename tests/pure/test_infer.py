"""Rules of finding a layout from shapes and data."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from twinrun.comparison.assemble import assemble
from twinrun.comparison.infer import Inference, NoFit, infer, infer_pair
from twinrun.comparison.shards import Shard, fetcher
from twinrun.layout import Mesh, parse_axes, parse_dims, place


def values(*shape: int) -> torch.Tensor:
    return torch.arange(1.0, 1.0 + math.prod(shape)).view(shape)


def on(axes: str, *tensors: torch.Tensor) -> dict[int, Shard]:
    """One tensor for each rank of a mesh; an empty text gives ranks without coordinates."""
    sizes = parse_axes(axes)
    return {
        rank: Shard(Mesh.at(rank, sizes) if sizes else Mesh(), tuple(t.shape), lambda t=t: t)
        for rank, t in enumerate(tensors)
    }


def inferred(found: Inference | NoFit) -> Inference:
    assert isinstance(found, Inference), found
    assert found.source == "inferred"
    return found


def test_equal_bits_on_every_rank_are_replicas():
    """One shape, the whole one, and equal bits: replicated over every axis."""
    x = values(2, 3)
    found = inferred(infer(on("tp=2", x, x.clone()), (2, 3)))
    assert found.dims_text == "d0 d1" and found.differences == () and found.candidates == ()
    assert found.placement.replicas == ((0, 1),)
    assert inferred(infer(on("tp=2", x, x.clone()), None)).dims_text == "d0 d1"


def test_shapes_that_add_up_along_one_dim_are_shards_of_it():
    """Uneven parts in rank order, named as the other side names its dims."""
    x = values(2, 7)
    shards = on("tp=3", x[:, :3], x[:, 3:5], x[:, 5:])
    found = inferred(infer(shards, (2, 7), like=parse_dims("t h")))
    assert found.dims_text == "t h[tp]"
    assert torch.equal(assemble(found.placement, fetcher(shards)), x)


def test_ranks_without_coordinates_are_one_axis():
    """With no mesh at all the axis is called world."""
    x = values(4, 2)
    assert inferred(infer(on("", x[:2], x[2:]), (4, 2))).dims_text == "d0[world] d1"


def test_unequal_replicas_are_reported_with_pending_sums_as_candidates():
    """Only the replicated layout fits by shape, so its differences are told; sums are hints."""
    one, two = values(2, 3), values(2, 3) * 2
    found = inferred(infer(on("tp=2", one, two), (2, 3)))
    assert found.dims_text == "d0 d1" and found.differences[0].ranks == (0, 1)
    (candidate,) = found.candidates
    assert candidate.dims_text == "d0 d1 [tp:partial]"
    shards = on("tp=2", one, two)
    assert torch.equal(assemble(candidate.placement, fetcher(shards)), one + two)


def test_a_pending_sum_is_offered_only_over_axes_that_explain_it():
    """ep ranks are equal, tp ranks are not: the sum over tp is offered, and that over both, not ep."""
    one, two = values(3), values(3) * 2
    found = inferred(infer(on("ep=2,tp=2", one, two, one, two), (3,)))
    assert [c.dims_text for c in found.candidates] == [
        "d0 [tp:partial]",
        "d0 [ep:partial] [tp:partial]",
    ]


def test_replicas_decide_between_layouts_of_the_same_shapes():
    """Two axes, one split: the axis along which bits are equal is the replicated one."""
    x = values(2, 4)
    found = inferred(infer(on("ep=2,tp=2", x[:, :2], x[:, 2:], x[:, :2], x[:, 2:]), (2, 4)))
    assert found.dims_text == "d0 d1[tp]"
    found = inferred(infer(on("cp=2,tp=2", x[:, :2], x[:, :2], x[:, 2:], x[:, 2:]), (2, 4)))
    assert found.dims_text == "d0 d1[cp]"


def test_several_layouts_that_fit_are_no_layout():
    """Two axes that could each split either dim: refused with both texts, whatever would compare well."""
    x = values(4, 4)
    blocks = on("cp=2,tp=2", x[:2, :2], x[:2, 2:], x[2:, :2], x[2:, 2:])
    found = infer(blocks, (4, 4))
    assert isinstance(found, NoFit)
    assert set(found.layouts) == {"d0[cp] d1[tp]", "d0[tp] d1[cp]"}


def test_several_layouts_that_give_one_tensor_are_one():
    """A tensor of zeros is the same whichever axis splits it."""
    zeros = torch.zeros(2, 2)
    assert inferred(infer(on("cp=2,tp=2", *[zeros] * 4), (4, 4))).placement.shape == (4, 4)


def test_axes_on_one_dim_keep_the_order_of_ranks():
    """The outer axis is the one with the larger rank step, however the mesh lists them."""
    x = values(8)
    parts = on("cp=2,tp=2", *x.split(2))
    mixed = {
        rank: Shard(Mesh(dict(reversed(list(s.mesh.items())))), s.shape, s.fetch)
        for rank, s in parts.items()
    }
    for shards in (parts, mixed):
        found = inferred(infer(shards, (8,)))
        assert found.dims_text == "d0[cp,tp]"
        assert torch.equal(assemble(found.placement, fetcher(shards)), x)


def test_data_axes_hold_samples_or_split_a_dim_but_never_replicate():
    """dp ranks of the whole shape are other samples; parts of it are joined; parameters replicate."""
    one, two = values(2, 3), values(2, 3) + 9
    samples = inferred(infer(on("dp=2", one, two), (2, 3)))
    assert len(samples.placement.groups) == 2 and samples.placement.replicas == ()
    assert samples.differences == ()
    joined = inferred(infer(on("dp=2", one, two), (4, 3)))
    assert joined.dims_text == "d0[dp] d1"
    weights = inferred(infer(on("dp=2", one, two), (2, 3), data_axes=frozenset()))
    assert weights.differences[0].ranks == (0, 1)


def test_neighbours_that_share_a_part_are_found_when_their_bits_agree():
    """Four ranks, two key-value heads: pairs of neighbours hold the same head."""
    x = values(2, 6)
    left, right = x[:, :3], x[:, 3:]
    assert (
        inferred(infer(on("tp=4", left, left, right, right), (2, 6))).dims_text
        == "d0 d1[tp:repeat2]"
    )
    assert isinstance(infer(on("tp=4", left, right, left, right), (2, 6)), NoFit)


def test_axes_that_describe_the_same_ranks_twice_count_once():
    """Several meshes over the same ranks (tp, and moe_tp equal to it) make one layout."""
    x = values(4)
    shards = {
        rank: Shard(
            Mesh.of(tp=(rank, 2), moe_tp=(rank, 2)), (2,), lambda r=rank: x[2 * r : 2 * r + 2]
        )
        for rank in range(2)
    }
    assert inferred(infer(shards, (4,))).dims_text == "d0[tp]"


@pytest.mark.parametrize(
    ("shards", "whole", "told"),
    [
        (on("tp=2", values(2, 3), values(2, 3)), (3, 8), r"2 x \[2, 3\]"),
        (on("tp=2", values(2, 3), values(2, 3)), (6,), r"\[6\]"),
        (on("tp=2", values(2, 3), values(3)), (2, 3), r"\[2, 3\], \[3\]"),
        ({}, (2,), "no rank"),
        (on("tp=2", values(3), values(3) + 1), None, "nothing tells"),
    ],
)
def test_what_fits_no_layout_says_why(shards, whole, told):
    """NoFit names the shapes; it is a value, not an error."""
    found = infer(shards, whole)
    assert isinstance(found, NoFit)
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(found.reason)


def test_ranks_that_stand_at_one_place_are_named():
    """Two data-parallel copies of a tensor-parallel mesh that knows only tp: the reason says so."""
    meshes = [Mesh.of(tp=(rank % 2, 2)) for rank in range(4)]
    shards = {r: Shard(m, (3,), lambda: values(3)) for r, m in enumerate(meshes)}
    found = infer(shards, (6,))
    assert isinstance(found, NoFit)
    assert "ranks 0 and 2 claim the same box" in found.reason and "--mesh" in found.reason


def test_parts_of_several_dtypes_are_no_tensor():
    """Where two layouts have to be held against each other and the parts cannot be joined: NoFit."""
    ones = [torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2).double(), torch.ones(2, 2)]
    found = infer(on("cp=2,tp=2", *ones), (4, 4))
    assert isinstance(found, NoFit) and "different dtypes" in found.reason


def test_too_many_axes_are_refused_not_tried():
    """Beyond the bound the answer says that it was not tried."""
    meshes = {r: Mesh({f"a{i}": (r >> (i % 2) & 1, 2) for i in range(9)}) for r in range(4)}
    shards = {r: Shard(m, (2, 2), lambda: values(2, 2)) for r, m in meshes.items()}
    found = infer(shards, (4, 4))
    assert isinstance(found, NoFit) and "would have to be tried" in found.reason


def test_two_sides_cut_differently_meet_in_one_shape():
    """2 against 4 ranks: the only common logical shape is taken on both sides."""
    x = values(4, 16)
    pair = infer_pair(on("tp=2", *x.split(8, 1)), on("tp=4", *x.split(4, 1)))
    assert not isinstance(pair, NoFit)
    assert [p.dims_text for p in pair] == ["d0 d1[tp]", "d0 d1[tp]"]
    assert pair[0].placement.shape == pair[1].placement.shape == (4, 16)


def test_two_sides_of_equal_coordinates_are_compared_one_by_one():
    """Same mesh and shapes, different bits: every coordinate is a group with its counterpart."""
    x, y = values(4, 16), values(4, 16) + 1
    first, second = infer_pair(on("tp=2", *x.split(8, 1)), on("tp=2", *y.split(8, 1)))
    assert [g.data for g in first.placement.groups] == [(("tp", 0),), (("tp", 1),)]
    assert [g.data for g in first.placement.groups] == [g.data for g in second.placement.groups]
    plain = infer_pair(on("", *x.split(8, 1)), on("", *y.split(8, 1)))
    assert [len(p.placement.groups) for p in plain] == [2, 2]


def test_copies_on_both_sides_are_replicated_however_many():
    """2 against 4 equal copies of one shape: replicated on both sides."""
    x = values(4, 8)
    pair = infer_pair(on("tp=2", x, x), on("tp=4", *[x + 1] * 4))
    assert [p.dims_text for p in pair] == ["d0 d1", "d0 d1"]


def test_a_missing_sum_on_one_side_keeps_its_differences():
    """One rank against two unequal ones of the same shape: differences and the sum as candidate."""
    x = values(4, 8)
    first, second = infer_pair(on("", x), on("tp=2", x * 0.25, x * 0.75))
    assert first.differences == () and second.differences
    assert [c.dims_text for c in second.candidates] == ["d0 d1 [tp:partial]"]


def test_two_sides_without_a_common_shape_do_not_fit():
    """The reason names both sides' shapes."""
    found = infer_pair(on("tp=2", values(3), values(3) + 1), on("", values(5)))
    assert isinstance(found, NoFit) and "no logical shapes fit" in found.reason


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["d0", "d1", None]), min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_an_inferred_layout_is_the_true_one_or_none(roles, rows, cols, random):
    """Whatever mesh cut the tensor: inference gives that tensor back or says NoFit."""
    axes = {f"a{i}": 2 for i in range(len(roles))}
    text = " ".join(
        f"{dim}[{','.join(on_it)}]"
        if (on_it := [a for a, r in zip(axes, roles, strict=True) if r == dim])
        else dim
        for dim in ("d0", "d1")
    )
    local = (rows, cols)
    dims = parse_dims(text)
    ranks = {r: (Mesh.at(r, axes), local) for r in range(math.prod(axes.values()))}
    truth = place(dims, ranks)
    whole = torch.tensor([random.random() for _ in range(math.prod(truth.shape))]).view(truth.shape)
    assume(whole.unique().numel() == whole.numel())
    parts = {r: whole[truth.pieces[r][0].logical.slices] for r in ranks}
    shards = {r: Shard(m, s, lambda r=r: parts[r]) for r, (m, s) in ranks.items()}
    found = infer(shards, tuple(truth.shape))
    if isinstance(found, Inference):
        assert not found.differences
        assert torch.equal(assemble(found.placement, fetcher(shards)), whole)
    else:
        assert text in found.layouts
