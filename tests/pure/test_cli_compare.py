"""``twinrun compare`` as a command: options become arguments, results become output and exit codes."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from shlex import split
from types import ModuleType
from typing import Any

import pytest
from comparisons import EVERY

from twinrun.cli.main import run
from twinrun.comparison.result import Result
from twinrun.report.progress import bar


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command handed to compare(); the test sets ``result`` before."""
    said: dict[str, Any] = {"result": EVERY["agreement"]()}

    def compare(baseline: str, target: str, **options: Any) -> Result:
        said.update(options, baseline=baseline, target=target)
        return said["result"]

    module = ModuleType("twinrun.comparison.compare")
    module.compare = compare  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "twinrun.comparison.compare", module)
    return said


@pytest.mark.parametrize("name", EVERY)
def test_the_exit_code_is_the_results(name: str, asked: dict[str, Any]) -> None:
    """compare exits with its result's code, with and without --json."""
    asked["result"] = EVERY[name]()
    assert run(["compare", "a", "b"]) == asked["result"].exit_code
    assert run(["compare", "a", "b", "--json"]) == asked["result"].exit_code


def test_json_goes_to_stdout_alone(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json every line of stdout is one object, and stderr stays empty in a pipe."""
    run(["compare", "a", "b", "--json"])
    captured = capsys.readouterr()
    assert [json.loads(line)["type"] for line in captured.out.splitlines()][-1] == "summary"
    assert captured.err == ""


def test_options_become_arguments(asked: dict[str, Any]) -> None:
    """Each option reaches compare() under its argument, parsed."""
    words = split("compare n1/a,n2/a b --noise a2 --map m.yaml --layouts l.yaml --settings s.yaml")
    words += split(
        "--allow *.rotary* --allow x --floor *.mlp:output=1e-4 --floor y=0 --k 8 --k *.norm*=3"
    )
    words += split("--skip-steps 1,2 --hints all")
    assert run(words) == 0
    assert asked["baseline"] == "n1/a,n2/a"
    assert asked["noise"] == ("a2",)
    assert (asked["map"], asked["layouts"], asked["settings"]) == ("m.yaml", "l.yaml", "s.yaml")
    assert asked["allow"] == ("*.rotary*", "x")
    assert asked["floor"] == {"*.mlp:output": 1e-4, "y": 0.0}
    assert asked["k"] == {"*": 8.0, "*.norm*": 3.0}
    assert asked["skip_steps"] == (1, 2)
    assert asked["hints"] == "all"


def test_one_number_of_steps_is_for_both_runs(asked: dict[str, Any]) -> None:
    """--skip-steps N drops N steps on either side; without it nothing is dropped."""
    run(["compare", "a", "b"])
    assert asked["skip_steps"] == (0, 0)
    run(["compare", "a", "b", "--skip-steps", "3"])
    assert asked["skip_steps"] == (3, 3)


@pytest.mark.parametrize(
    "words",
    [
        ["--floor", "1e-4"], ["--floor", "=1e-4"], ["--floor", "a=x"], ["--k", "many"], ["--hints", "some"],
        ["--skip-steps", "1,2,3"], ["--skip-steps", "-1"], ["--skip-steps", "one"], ["--top", "-1"],
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_before_anything_is_read(
    words: list[str], asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A value that does not parse exits 2, is quoted, and compare() is not called."""
    assert run(["compare", "a", "b", *words]) == 2
    assert "baseline" not in asked
    assert words[0] in capsys.readouterr().err


def test_advice_names_only_commands_that_there_are(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What to do next never sends the reader to a command that this version lacks."""
    lines = ("twinrun show a x", "twinrun levitate a", "record a second run")
    asked["result"] = replace(EVERY["divergence"](), advice=lines)
    run(["compare", "a", "b"])
    out = capsys.readouterr().out
    assert "twinrun show a x" in out
    assert "record a second run" in out
    assert "levitate" not in out


def test_no_bar_in_a_pipe() -> None:
    """Where stderr is no terminal nothing of the progress is written."""
    stream = io.StringIO()
    with bar(stream, "comparing") as told:
        assert told is None
    assert stream.getvalue() == ""
