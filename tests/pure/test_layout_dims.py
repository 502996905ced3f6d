"""Rules of the dims text and of mesh texts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrun.errors import DimsError, LayoutError
from twinrun.layout import DATA_AXES, Dim, Dims, Mesh, Modifier, parse_axes, parse_dims

CANONICAL = [
    ("b s h[tp]", "b s h[tp]"),
    ("", ""),
    ("  t   h ", "t h"),
    ("t[cp:zigzag, sp] 1 h # tp:replicated", "t[cp:zigzag,sp] 1 h # tp:replicated"),
    ("s[cp:zigzag,sp] b (num_heads * head_dim)[tp]", "s[cp:zigzag,sp] b (num_heads*head_dim)[tp]"),
    ("h[tp:sharded] s[cp:natural+sharded]", "h[tp] s[cp]"),
    ("h[cp:zigzag+partial,sp]", "h[cp:zigzag+partial,sp]"),
    ("t h[tp:partial]", "t h[tp:partial]"),
    ("t h [tp:partial]", "t h [tp:partial]"),
    ("[tp:partial]", "[tp:partial]"),
    (
        "t h # ep:replicated dp:=moe_dp moe_tp:replicated",
        "t h # dp:=moe_dp ep:replicated moe_tp:replicated",
    ),
    ("t[cp:zigzag] h # t:packed=8+16", "t[cp:zigzag] h # t:packed=8+16"),
    (
        "kv_heads[tp:repeat2] d[cp:repeat4+zigzag,sp:repeat1]",
        "kv_heads[tp:repeat2] d[cp:zigzag+repeat4,sp]",
    ),
    ("t h #", "t h"),
    ("1 1 x[my_axis9]", "1 1 x[my_axis9]"),
]

REFUSED = [
    ("h(tp)", "h\\[tp\\]"),
    ("h[tp", "'h\\[tp'"),
    ("t h[]", "axis name"),
    ("h h", "each dim once"),
    ("h (h*d)", "each dim once"),
    ("h[tp] s[tp]", "each axis once"),
    ("h[tp] [tp:partial]", "each axis once"),
    ("h[tp] # tp:replicated", "not both"),
    ("h[dp] # dp:=dp", "not both"),
    ("h # dp:=x x:replicated", "no replicas"),
    ("h [tp]", "standing alone"),
    ("h[tp:diagonal]", "zigzag, natural, partial, sharded"),
    ("h[tp:zigzag+natural]", "one of zigzag and natural"),
    ("h[tp:partial+sharded]", "one of partial and sharded"),
    ("h[tp:repeat0]", "repeat<count>"),
    ("h[tp:repeat2+repeat2]", "each qualifier once"),
    ("h [tp:partial+repeat2]", "standing alone"),
    ("1[tp]", "cannot be split"),
    ("(h)", "at least two names"),
    ("(a b)", "at least two names"),
    ("a-b", "'a-b'"),
    ("h # tp", "after '#'"),
    ("h # dp:=a dp:=b", "once"),
    ("h # s:packed=3", "named 's'"),
    ("h # h:packed=", "after '#'"),
    ("x" * 5000, "5000 characters"),
]


@pytest.mark.parametrize(("text", "canonical"), CANONICAL)
def test_a_text_has_one_canonical_form_that_parses_back(text, canonical):
    """parse(str(parse(text))) == parse(text), and str drops defaults and spare blanks."""
    dims = parse_dims(text)
    assert str(dims) == canonical
    assert parse_dims(canonical) == dims


@pytest.mark.parametrize(("text", "told"), REFUSED)
def test_a_text_that_is_no_dims_text_is_refused_with_what_was_expected(text, told):
    """Every refusal is a DimsError that names the word and what may stand there."""
    with pytest.raises(DimsError, match=told):
        parse_dims(text)


@settings(deadline=None)
@given(st.text(alphabet="th1(*)[],:+=# dpacked:replicated\n0", max_size=40))
def test_no_text_brings_anything_but_a_dims_error(text):
    """Arbitrary text parses to a value that renders and parses back, or raises DimsError."""
    try:
        dims = parse_dims(text)
    except DimsError:
        return
    assert parse_dims(str(dims)) == dims


modifier = st.builds(
    Modifier, st.from_regex(r"[a-z]{1,3}_ax", fullmatch=True), st.booleans(), st.booleans()
)
dim = st.builds(
    Dim,
    st.lists(st.from_regex(r"[a-z]{2,4}", fullmatch=True), min_size=1, max_size=3, unique=True).map(
        tuple
    ),
    st.lists(modifier, max_size=2, unique_by=lambda m: m.axis).map(tuple),
)


@settings(deadline=None)
@given(st.lists(dim, max_size=4, unique_by=lambda d: d.names[0]), st.booleans())
def test_any_dims_value_survives_its_text(dims, aliased):
    """parse(str(d)) == d for values that contradict themselves nowhere."""
    value = Dims(tuple(dims), ("zz",), "moe_dp" if aliased else None, ("ep",))
    names = [name for d in dims for name in d.names]
    axes = [m.axis for d in dims for m in d.modifiers]
    if len(set(names)) == len(names) and len(set(axes)) == len(axes):
        assert parse_dims(str(value)) == value


def test_dims_that_name_too_few_are_refused_with_an_example():
    """The error has the text, the shape, where it was seen, and a text that would fit."""
    with pytest.raises(DimsError) as caught:
        parse_dims("t h[tp]").check((4, 16, 128), name="attn_out", where="rank 1, step 0")
    assert str(caught.value).splitlines() == [
        "dims 't h[tp]' name 2 dims, but 'attn_out' has shape [4, 16, 128]",
        "  seen      rank 1, step 0, attn_out, [4, 16, 128]",
        "  expected  one name for each of the 3 dims",
        "  do        name the missing one, for instance 't n h[tp]'   (docs/dims.md)",
    ]


def test_dims_that_name_too_many_or_a_squeezed_dim_that_is_not_one_are_refused():
    """The count and the size of '1' are checked against the shape."""
    with pytest.raises(DimsError, match="take out 1"):
        parse_dims("b t h").check((4, 5))
    with pytest.raises(DimsError, match="its size is 2"):
        parse_dims("1 h").check((2, 3), name="x")
    parse_dims("1 h").check((1, 3))
    parse_dims("").check(())


def test_data_axes_follow_the_facts():
    """Known data axes hold samples unless sharded, replicated or renamed; parameters have none."""
    assert "dp" in parse_dims("t h").data_axes()
    assert "dp" not in parse_dims("b[dp] h").data_axes()
    assert "dp" not in parse_dims("b h # dp:replicated").data_axes()
    assert parse_dims("t h # dp:=moe_dp").data_axes() == {"moe_dp"}
    assert parse_dims("t h").data_axes(frozenset()) == frozenset()
    assert parse_dims("t h").data_axes(frozenset({"mine"})) == {"mine"}
    assert "tp" not in DATA_AXES


@settings(deadline=None)
@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,4}", fullmatch=True), st.integers(1, 9), max_size=4)
)
def test_a_mesh_survives_its_text_and_its_grid(sizes):
    """Mesh.parse(str(m)) == m for every rank of a grid; all coordinates differ; last axis fastest."""
    total = 1
    for size in sizes.values():
        total *= size
    ranks = range(min(total, 50))
    meshes = [Mesh.at(rank, sizes) for rank in ranks]
    assert all(Mesh.parse(str(mesh)) == mesh for mesh in meshes)
    assert len(set(meshes)) == len(meshes)
    places = [tuple(c for c, _ in mesh.values()) for mesh in meshes]
    assert places == sorted(places)


def test_mesh_texts_that_make_no_sense_are_refused():
    """Coordinates lie inside their axis, names are names, nothing is said twice."""
    for text in ("tp", "tp=1", "tp=4/4", "tp=0/2 tp=1/2", "9=0/1", "tp=0/99999999999999999999"):
        with pytest.raises(LayoutError):
            Mesh.parse(text)
    for text in ("tp", "tp=0", "tp=2,tp=2"):
        with pytest.raises(LayoutError):
            parse_axes(text)
    with pytest.raises(LayoutError, match="outside a mesh of 4"):
        Mesh.at(4, {"dp": 2, "tp": 2})
    assert parse_axes("dp=2, tp=4") == {"dp": 2, "tp": 4}
    assert Mesh.of(tp=(1, 2), dp=(0, 2)) == Mesh.parse("dp=0/2,tp=1/2")
