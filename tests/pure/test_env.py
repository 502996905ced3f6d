"""The typed environment: strict parsing, provenance, and all problems at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.env import Origin, check, declared, problems
from twinrun.env import variables as V
from twinrun.env.kinds import Choice, Integer, Number, Size, Text
from twinrun.errors import VariableError


@pytest.mark.parametrize("text", ["1", "true", "yes", "on", "True", "ON"])
def test_on_is_spelled_four_ways(text: str) -> None:
    """1, true, yes and on, in any case, are on."""
    assert V.SYMMETRIC_ALL_REDUCE.get({"TWINRUN_SYMMETRIC_ALL_REDUCE": text}) is True


@pytest.mark.parametrize("text", ["", "ture", "2", " 1", "y", "enabled"])
def test_anything_else_is_an_error_that_names_the_variable(text: str) -> None:
    """A flag's text outside the eight spellings is refused with the name and the text seen."""
    with pytest.raises(VariableError) as caught:
        V.SYMMETRIC_ALL_REDUCE.get({"TWINRUN_SYMMETRIC_ALL_REDUCE": text})
    assert "TWINRUN_SYMMETRIC_ALL_REDUCE" in str(caught.value) and repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Integer(), "1_000"),
        (Integer(), "٣"),
        (Integer(), ""),
        (Integer(), "--1"),
        (Integer(least=1), "0"),
        (Integer(most=65535), "65536"),
        (Number(), "nan"),
        (Number(), "inf"),
        (Number(least=0.1), "0"),
        (Size(), "4 MiB"),
        (Size(), "4MB"),
        (Size(), "-1"),
        (Choice(("ranks", "tree")), "Ranks"),
        (Text(), ""),
    ],
)
def test_each_kind_is_strict(kind: Integer, text: str) -> None:
    """What a kind does not plainly mean raises ValueError with what was expected."""
    with pytest.raises(ValueError, match=r"a |one of"):
        kind.parse(text)


@given(st.integers())
def test_integers_parse_as_rendered(value: int) -> None:
    """parse(render(x)) == x."""
    assert Integer().parse(Integer().render(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_parse_as_rendered(value: float) -> None:
    """parse(render(x)) == x for every finite number."""
    assert Number().parse(Number().render(value)) == value


def test_sizes_have_units() -> None:
    """KiB, MiB and GiB are powers of two; plain digits are bytes."""
    assert [Size().parse(text) for text in ("7", "96KiB", "4MiB", "1GiB")] == [
        7, 96 << 10, 4 << 20, 1 << 30,
    ]  # fmt: skip


def test_all_problems_come_in_one_error() -> None:
    """check() names every unknown variable and every text that does not parse, together."""
    environ = {
        "TWINRUN_SYMETRIC_ALL_REDUCE": "1",
        "TWINRUN_DETERMINISTIC": "ture",
        "TWINRUN_ALL_REDUCE_TIMEOUT_S": "soon",
        "OTHER": "left alone",
    }
    with pytest.raises(VariableError) as caught:
        check(environ)
    text = str(caught.value)
    assert len(problems(environ)) == 3
    assert "did you mean TWINRUN_SYMMETRIC_ALL_REDUCE?" in text
    assert "TWINRUN_DETERMINISTIC='ture'" in text and "TWINRUN_ALL_REDUCE_TIMEOUT_S='soon'" in text
    assert "OTHER" not in text


def test_a_clean_environment_passes() -> None:
    """check() says nothing where nothing is wrong."""
    check({"TWINRUN_DETERMINISTIC": "on", "PATH": "/bin"})


def test_other_programs_variables_are_not_judged() -> None:
    """A foreign variable is parsed only where its value is needed."""
    assert problems({"RANK": "one"}) == ()
    with pytest.raises(VariableError):
        V.RANK.get({"RANK": "one"})


def test_set_by_the_user_or_by_default() -> None:
    """is_set() is true for a text in the environment, also one equal to the default."""
    assert not V.SYMMETRIC_ALL_REDUCE.is_set({})
    assert V.SYMMETRIC_ALL_REDUCE.is_set({"TWINRUN_SYMMETRIC_ALL_REDUCE": "1"})
    assert V.SYMMETRIC_ALL_REDUCE.source({}).kind == "default"


RULE = Origin("rule", "launch.in_node_only")


@pytest.mark.parametrize("asked", [None, "1"])
def test_a_rule_leaves_is_set_true_to_its_meaning(asked: str | None) -> None:
    """After a rule sets a value, is_set() still says whether the user had set one."""
    environ = {} if asked is None else {"TWINRUN_SYMMETRIC_ALL_REDUCE": asked}
    V.SYMMETRIC_ALL_REDUCE.set(False, RULE, environ)
    V.SYMMETRIC_ALL_REDUCE.set(False, RULE, environ)  # a nested launch applies it again
    assert V.SYMMETRIC_ALL_REDUCE.get(environ) is False
    assert V.SYMMETRIC_ALL_REDUCE.is_set(environ) is (asked is not None)
    assert V.SYMMETRIC_ALL_REDUCE.source(environ) == Origin("rule", "launch.in_node_only", asked)
    assert check(environ) is None


def test_an_export_further_down_is_the_users_again() -> None:
    """An origin counts only while the variable holds the text that was noted with it."""
    environ: dict[str, str] = {}
    V.SYMMETRIC_ALL_REDUCE.set(False, RULE, environ)
    environ["TWINRUN_SYMMETRIC_ALL_REDUCE"] = "1"
    assert V.SYMMETRIC_ALL_REDUCE.source(environ).kind == "environment"
    assert V.SYMMETRIC_ALL_REDUCE.is_set(environ)


@pytest.mark.parametrize("asked", [None, "1"])
@pytest.mark.parametrize("ruled", [False, True])
def test_override_restores_also_when_the_block_raises(asked: str | None, ruled: bool) -> None:
    """After override() the text and its origin are what they were, also after an error."""
    environ = {} if asked is None else {"TWINRUN_SYMMETRIC_ALL_REDUCE": asked}
    if ruled:
        V.SYMMETRIC_ALL_REDUCE.set(False, RULE, environ)
    before = dict(environ)
    with pytest.raises(KeyError), V.SYMMETRIC_ALL_REDUCE.override(True, environ):
        assert V.SYMMETRIC_ALL_REDUCE.get(environ) is True
        raise KeyError
    assert environ == before


def test_set_refuses_what_would_not_parse() -> None:
    """set() never writes a text that get() would refuse."""
    environ: dict[str, str] = {}
    with pytest.raises(VariableError):
        V.ALL_REDUCE_TIMEOUT_S.set(-1.0, environ=environ)
    assert environ == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"A": ["1"]}', '{"A": ["1", "magic", "", null]}'])
def test_foreign_origins_are_refused(text: str) -> None:
    """TWINRUN_ORIGINS that Twinrun did not write is a problem, not a crash."""
    assert problems({"TWINRUN_ORIGINS": text, "TWINRUN_DETERMINISTIC": "1"})


def test_children_see_the_value_and_where_it_came_from() -> None:
    """A rule's value reaches a child process together with its origin."""
    environ: dict[str, str] = {}
    V.SYMMETRIC_ALL_REDUCE.set(False, RULE, environ)
    code = (
        "from twinrun.env import variables as V; v = V.SYMMETRIC_ALL_REDUCE;"
        "print(v.get(), v.is_set(), v.source())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "False False launch rule launch.in_node_only (you had not set it)"


def test_nothing_is_read_at_import_and_torch_stays_out() -> None:
    """Importing the table reads no variable and never imports torch."""
    code = (
        "import os, sys\n"
        "class Spy(dict):\n"
        "    def get(self, name, default=None):\n"
        "        assert not name.startswith('TWINRUN'), name\n"
        "        return super().get(name, default)\n"
        "    __getitem__ = get\n"
        "os.environ = Spy(os.environ)\n"
        "import twinrun.env.variables\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_row_is_complete() -> None:
    """Each row has one line of help, and a default that its kind renders and parses back."""
    for variable in declared().values():
        assert variable.help and "\n" not in variable.help and len(variable.help) < 100
        if variable.default is not None:
            kind = variable.kind
            assert kind.parse(kind.render(variable.default)) == variable.default
