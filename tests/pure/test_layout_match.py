"""Rules of bringing tensors with the same dim names to one order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrun.layout import Box, Dim, Dims, match, parse_dims

SIZES = {"b": 2, "s": 3, "h": 4, "d": 5}


def seen(view, tensor: np.ndarray) -> np.ndarray:
    return tensor.reshape(view.split).transpose(view.order)


def fit(one: str, two: str):
    """Views for two texts over the fixed sizes."""
    shapes = [
        tuple(
            1 if d.squeezed else int(np.prod([SIZES[n] for n in d.names])) for d in parse_dims(text)
        )
        for text in (one, two)
    ]
    return match(parse_dims(one), shapes[0], parse_dims(two), shapes[1])


def test_dims_in_another_order_are_permuted():
    """s b h against b s h: the second is seen in the first one's order."""
    one, two = fit("b s h", "s b h")
    assert one.identity and two.order == (1, 0, 2) and two.shape == one.shape == (2, 3, 4)


def test_fused_and_squeezed_dims_are_cut_and_dropped():
    """t (h*d) against h 1 d: both become h d, the fused sizes told by the other side."""
    one, two = fit("s (h*d)", "s 1 h d")
    assert one.split == (3, 4, 5) and two.parts == ((3,), (), (4,), (5,))
    assert one.shape == two.shape == (3, 4, 5)


def test_a_dim_fused_alike_on_both_sides_stays_whole():
    """Nobody tells the sizes of num_heads and head_dim, and nobody needs them."""
    one, two = fit("s (h*d)", "(h*d) s")
    assert one.shape == two.shape == (3, 20)


def test_one_unknown_size_follows_from_the_rest():
    """(h*d) against (d*s) h: only h is told, d follows from the first, s from the second."""
    one, two = match(parse_dims("(h*d) b"), (20, 2), parse_dims("(b*d) h"), (10, 4))
    assert one.shape == two.shape == (4, 5, 2)


def test_other_names_or_unknown_sizes_are_no_match():
    """Names that do not correspond give None; nothing is guessed by position."""
    assert fit("b s", "b h") is None
    assert fit("b s h", "b s") is None
    assert match(parse_dims("(h*d)"), (20,), parse_dims("(d*h)"), (20,)) is None
    assert match(parse_dims("(h*d) s"), (21, 3), parse_dims("h d s"), (4, 5, 3)) is None


@st.composite
def arrangements(draw):
    """Two texts over one set of names, dims permuted, fused and squeezed at random."""
    names = draw(st.lists(st.sampled_from(list(SIZES)), min_size=1, max_size=4, unique=True))
    return [draw(_arranged(names)) for _ in range(2)]


@st.composite
def _arranged(draw, names):
    left = draw(st.permutations(names))
    dims = []
    while left:
        count = draw(st.integers(1, len(left)))
        dims.append(Dim(tuple(left[:count])))
        left = left[count:]
        if draw(st.booleans()):
            dims.append(Dim(("1",)))
    return Dims(tuple(dims))


@settings(max_examples=200, deadline=None)
@given(arrangements(), st.data())
def test_views_show_both_tensors_as_one_and_box_by_box(texts, data):
    """The same logical values appear at the same index, whole or read through hulls."""
    values = np.arange(np.prod(list(SIZES.values()))).reshape(list(SIZES.values()))
    names = {n for dim in texts[0] for n in dim.names if n != "1"}
    base = values[tuple(slice(None) if n in names else 0 for n in SIZES)]
    kept = [n for n in SIZES if n in names]
    tensors = [_arrange(base, kept, dims) for dims in texts]
    found = match(texts[0], tensors[0].shape, texts[1], tensors[1].shape)
    if found is None:
        assert any(dim.fused for dims in texts for dim in dims)
        return
    one, two = (seen(view, tensor) for view, tensor in zip(found, tensors, strict=True))
    assert np.array_equal(one, two)
    box = _some_box(data.draw, found[0].shape)
    for view, tensor in zip(found, tensors, strict=True):
        hull = view.hull(box)
        part = tensor[hull.slices].reshape(view.split_of(hull)).transpose(view.order)
        assert np.array_equal(part[view.within(box).slices], one[box.slices])


def _arrange(base, kept, dims):
    flat = [n for dim in dims for n in dim.names if n != "1"]
    shape = [1 if d.squeezed else int(np.prod([SIZES[n] for n in d.names])) for d in dims]
    return base.transpose([kept.index(n) for n in flat]).reshape(shape)


def _some_box(draw, shape):
    pairs = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in shape]
    return Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))
