"""Filters: what they take, and how they say that they do not parse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.errors import FilterError
from twinrun.recorder.filter import parse_filter

FACTS = {
    "name": "model.layers.3.mlp:output",
    "kind": "activation",
    "layer": 3,
    "scale": 0.5,
    "phase": "decode",
    "warm": True,
}

TAKEN = [
    "",
    "layer < 4",
    "layer <= 3 and layer >= 3",
    "layer > 2.5",
    "layer == 3",
    "layer != 4",
    "scale == 0.5",
    "phase == decode",
    "phase == 'decode'",
    "phase in (prefill, decode)",
    "layer in [1, 2, 3]",
    "layer not in (4, 5)",
    'name ~ "*.layers.*.mlp*"',
    "name ~ *.mlp:output",
    "name !~ *.attn*",
    "*.mlp:output",
    '"model.layers.3.mlp:output"',
    "model.layers.?.mlp:output",
    "layer ~ 3",
    "warm",
    "warm == true",
    "not layer < 3",
    "not not layer == 3",
    "layer < 1 or layer > 2",
    "layer < 1 or layer > 2 and kind == gradient or warm",
    "(layer < 1 or layer > 2) and kind == activation",
    "missing != 3",
    "missing !~ *",
    "missing not in (1, 2)",
]

DECLINED = [
    "layer < 3",
    "missing < 3",
    "missing == 3",
    "missing ~ *",
    "missing in (1, 2)",
    'layer == "3"',
    "phase < 3",
    "layer == true",
    "warm == 1",
    "MODEL.*",
    "layers.3.mlp",
    "gradient",
    "kind == gradient or (layer == 3 and not warm)",
]

BROKEN = {
    "layer <": 7,
    "(layer < 3": 10,
    "layer < 3)": 9,
    "and layer": 0,
    "layer < 3 and": 13,
    "layer == == 3": 9,
    "'abc": 0,
    "a b": 2,
    "layer in 3": 9,
    "layer in (1 2)": 12,
    "layer in ()": 10,
    "3 < layer": 0,
    "layer < 4; import os": 9,
    "not": 3,
    "x.*.y < 3": 0,
}


@pytest.mark.parametrize("text", TAKEN)
def test_takes(text: str) -> None:
    """Each of these is true of the facts."""
    assert parse_filter(text)(FACTS) is True


@pytest.mark.parametrize("text", DECLINED)
def test_declines(text: str) -> None:
    """Types do not mix, a missing tag fails every test but a negated one, globs match whole names."""
    assert parse_filter(text)(FACTS) is False


@pytest.mark.parametrize(("text", "at"), BROKEN.items())
def test_an_error_points_at_its_place(text: str, at: int) -> None:
    """A filter that does not parse is refused with a caret under the word that does not fit."""
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    shown, caret = str(caught.value).splitlines()[1:3]
    assert shown == f"    {text}"
    assert caret.index("^") == at + 4


def test_parentheses_are_bounded() -> None:
    """A text of ten thousand parentheses is an error, not an exhausted stack."""
    with pytest.raises(FilterError, match="parentheses"):
        parse_filter("(" * 10_000)


def test_reads_names_the_fields_it_depends_on() -> None:
    """A decision may be kept for as long as the fields that the filter reads stay the same."""
    assert parse_filter("layer < 4 and (*.mlp or step in (1,2))").reads == {"layer", "name", "step"}


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("layer == 3 and step == 7", True),
        ("layer == 4 and step == 7", False),
        ("layer == 4 or step == 7", True),
        ("not (layer == 3 or step == 7)", False),
        ("not (layer == 4 and step == 7)", True),
        ("module in (a, b) and rank == 0", False),
        ("warm", True),
        ("", True),
    ],
)
def test_may_looks_only_at_what_lasts(text: str, may: bool) -> None:
    """A site is out for good where no step, rank or tag could bring it in."""
    lasting = {"name": "model.layers.3.mlp:output", "module": "m", "layer": 3, "kind": "activation"}
    assert parse_filter(text).may(lasting) is may


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """No text raises anything but FilterError, and a parsed one gives a truth value."""
    try:
        accepts = parse_filter(text)
    except FilterError:
        return
    assert accepts(FACTS) in (True, False)


_ATOMS = st.sampled_from(["layer < 4", "*.mlp*", "warm", "phase == decode", "missing == 1"])
_TEXTS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({' '.join(p)})"),
        inner.map(lambda text: f"not ({text})"),
    ),
    max_leaves=12,
)


@given(_TEXTS)
def test_what_is_taken_may_be_taken(text: str) -> None:
    """``may`` never says no to a record that the filter takes."""
    accepts = parse_filter(text)
    assert accepts.may(FACTS) or not accepts(FACTS)


@given(_TEXTS)
def test_logic_is_pythons(text: str) -> None:
    """and, or, not and parentheses mean what they mean in Python."""
    values = {atom: parse_filter(atom)(FACTS) for atom in ["layer < 4", "*.mlp*", "warm"]}
    values |= {"phase == decode": True, "missing == 1": False}
    python = text
    for atom, value in values.items():
        python = python.replace(atom, str(value))
    assert parse_filter(text)(FACTS) == eval(python)
