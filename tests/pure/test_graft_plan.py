"""Plans of a receiver: boxes from the nearest holders, waits for what is unknown, refusals with advice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinrun.grafting.memory import blocks, fill, runs, snapshot
from twinrun.grafting.plan import Plan, Refusal, Side, Wait
from twinrun.grafting.planning import make_plan, whole_values
from twinrun.grafting.point import Holding


def hold(
    dims: str, shape: tuple[int, ...], kind: str = "activation", **mesh: tuple[int, int]
) -> Holding:
    axes = tuple((axis, at, size) for axis, (at, size) in mesh.items())
    return Holding("x", dims, axes, shape, "float32", kind)


def side(role: str, world: int, held: dict[int, Holding], absent: tuple[int, ...] = ()) -> Side:
    return Side(role, world, held, frozenset(absent))


def test_a_receiver_waits_until_every_box_has_a_holder() -> None:
    """One of two shards is not enough; the missing ranks are named."""
    senders = side("baseline", 2, {0: hold("t h[tp]", (4, 2), tp=(0, 2))})
    made = make_plan(0, senders, side("target", 1, {0: hold("", (4, 4))}))
    assert made == Wait("baseline rank 1")
    gone = side("baseline", 2, dict(senders.held), (1,))
    assert isinstance(make_plan(0, gone, side("target", 1, {0: hold("", (4, 4))})), Refusal)


def test_replicas_of_another_data_coordinate_are_never_taken() -> None:
    """Ranks over a data axis hold other samples: rank 1 of dp takes from rank 1 of dp."""
    held = {i: hold("b h", (2, 4), dp=(i, 2)) for i in range(2)}
    made = make_plan(
        1, side("baseline", 2, held), side("target", 2, {1: hold("b h", (2, 4), dp=(1, 2))})
    )
    assert isinstance(made, Plan) and [pull.sender for pull in made.pulls] == [1]
    parameters = {i: hold("o i", (2, 4), "parameter", dp=(i, 2)) for i in range(1)}
    mine = {1: hold("o i", (2, 4), "parameter", dp=(1, 2))}
    assert isinstance(make_plan(1, side("baseline", 2, parameters), side("target", 2, mine)), Plan)


def test_a_pending_sum_is_added_in_rank_order() -> None:
    """The first addend is put, the rest are added, lowest rank first."""
    held = {i: hold("t h[tp:partial]", (2, 4), tp=(i, 3)) for i in (2, 0, 1)}
    made = make_plan(0, side("baseline", 3, held), side("target", 1, {0: hold("", (2, 4))}))
    assert isinstance(made, Plan) and made.sums
    assert [(pull.sender, pull.parts[0].add) for pull in made.pulls] == [
        (0, False),
        (1, True),
        (2, True),
    ]


def test_without_layout_only_what_is_plain_is_matched() -> None:
    """Rank to rank, one whole holder to all; anything else is refused with what to add."""
    plain = {i: hold("", (2, 4)) for i in range(2)}
    assert isinstance(
        make_plan(1, side("baseline", 2, plain), side("target", 2, {1: plain[1]})), Plan
    )
    one = make_plan(1, side("baseline", 1, {0: plain[0]}), side("target", 2, {1: plain[1]}))
    assert isinstance(one, Plan) and "inferred" in one.note
    other = make_plan(
        1, side("baseline", 1, {0: plain[0]}), side("target", 2, {1: hold("", (2, 2))})
    )
    assert isinstance(other, Refusal) and "--graft-dims" in other.do
    known = side("target", 3, {0: plain[0], 1: plain[1], 2: hold("", (2, 8))})
    assert isinstance(make_plan(1, side("baseline", 2, plain), known), Refusal)


def test_stages_of_a_full_grid_are_not_waited_for() -> None:
    """With a pipeline axis in the mesh, ranks of another stage count as not holding the point."""
    held = {2: hold("", (2,), pp=(1, 2), tp=(0, 2)), 3: hold("", (2,), pp=(1, 2), tp=(1, 2))}
    made = whole_values(side("baseline", 4, held))
    assert isinstance(made, Plan) and [pull.sender for pull in made.pulls] == [2, 3]
    assert whole_values(side("baseline", 4, {2: held[2]})) == Wait("baseline rank 3")


@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 40))
def test_blocks_cover_a_tensor_once_in_order(shape: list[int], most: int) -> None:
    """Blocks follow each other in row-major order, hold at most `most` elements, and miss none."""
    x = torch.arange(torch.Size(shape).numel()).view(shape)
    parts = [(x[index].reshape(-1), count) for index, count in blocks(tuple(shape), most)]
    assert all(part.numel() == count <= most for part, count in parts)
    assert torch.equal(
        torch.cat([part for part, _ in parts]) if parts else x.reshape(-1), x.reshape(-1)
    )


@pytest.mark.parametrize(
    "make", [lambda x: x, lambda x: x.t(), lambda x: x[:, 3:70], lambda x: x[::2, ::3]]
)
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int16, torch.complex64, torch.bool],
)
def test_copies_keep_the_bits_whatever_the_strides(make: object, dtype: torch.dtype) -> None:
    """snapshot, runs and fill move every element, also of types without arithmetic."""
    x = make(torch.randint(0, 50, (300, 400)).to(dtype))  # type: ignore[operator]
    want = x.contiguous().view(torch.uint8)
    assert torch.equal(snapshot(x).view(torch.uint8), want)
    assert sum(nbytes for _, nbytes, _ in runs(x)) == x.numel() * x.element_size()
    into = torch.zeros(x.shape[1], x.shape[0], dtype=dtype).t()
    fill(into, x)
    assert torch.equal(into.contiguous().view(torch.uint8), want)


def test_a_split_is_inferred_where_one_side_is_whole() -> None:
    """Only by shape, in the order of the mesh: each receiver takes its part, and the note says so."""
    whole = side("baseline", 1, {0: hold("", (2, 16, 64))})
    mine = {1: hold("", (2, 16, 32), tp=(1, 2))}
    made = make_plan(1, whole, side("target", 2, mine))
    assert isinstance(made, Plan)
    assert made.note == "d0 d1 d2 -> d0 d1 d2[tp] (inferred)"
    (pull,) = made.pulls
    assert (pull.sender, pull.parts[0].source.starts) == (0, (0, 0, 32))
    shards = {i: hold("", (2, 16, 32), tp=(i, 2)) for i in range(2)}
    back = make_plan(0, side("baseline", 2, shards), side("target", 1, {0: hold("", (2, 16, 64))}))
    assert isinstance(back, Plan) and back.note == "d0 d1 d2[tp] -> d0 d1 d2 (inferred)"
    assert [pull.sender for pull in back.pulls] == [0, 1]


def test_one_known_side_lends_the_other_its_names() -> None:
    """A layout that only one side states is enough where one split of the other fits."""
    stated = {i: hold("b s h[tp]", (2, 16, 32), tp=(i, 2)) for i in range(2)}
    mine = {3: hold("", (2, 4, 64), cp=(3, 4))}
    made = make_plan(3, side("baseline", 2, stated), side("target", 4, mine))
    assert isinstance(made, Plan) and made.note == "b s h[tp] -> b s[cp] h (inferred)"
    assert sorted(pull.sender for pull in made.pulls) == [0, 1]


def test_inference_never_chooses_between_two_layouts() -> None:
    """Two axes of one size could both split the dim: refused with both texts, and what to give."""
    whole = side("baseline", 1, {0: hold("", (16, 64))})
    made = make_plan(0, whole, side("target", 4, {0: hold("", (16, 32), cp=(0, 2), tp=(0, 2))}))
    assert isinstance(made, Refusal) and "--graft-dims" in made.do
    assert "'d0 d1[cp]'" in made.reason and "'d0 d1[tp]'" in made.reason
    none = make_plan(0, whole, side("target", 2, {0: hold("", (16, 24), tp=(0, 2))}))
    assert isinstance(none, Refusal) and "no split of dims" in none.reason
    # Neighbours that share a part, and parts of a pipeline, are never guessed.
    shared = make_plan(0, whole, side("target", 4, {0: hold("", (16, 32), tp=(0, 4))}))
    assert isinstance(shared, Refusal)
    staged = {2: hold("", (16, 32), pp=(1, 2), tp=(0, 2))}
    assert isinstance(make_plan(2, whole, side("target", 4, staged)), Plan)


def test_inferred_replicas_are_held_against_each_other() -> None:
    """Shapes cannot tell replicas from addends of a sum: every sender's bits are asked for and compared."""
    equal = {i: hold("", (4, 8), tp=(i, 2)) for i in range(2)}
    made = make_plan(0, side("baseline", 2, equal), side("target", 1, {0: hold("", (4, 8))}))
    assert isinstance(made, Plan) and made.ordered and not made.sums
    assert [(pull.sender, pull.parts[0].check) for pull in made.pulls] == [(0, False), (1, True)]
    only = side("baseline", 2, {0: equal[0]})
    assert make_plan(0, only, side("target", 1, {0: hold("", (4, 8))})) == Wait("baseline rank 1")
