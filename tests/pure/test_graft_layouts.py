"""Layout files for grafts: exact names before globs, every problem at once, hostile input refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from twinrun.errors import UsageError
from twinrun.grafting.layouts import Layouts
from twinrun.grafting.settings import Settings, difference


def write(path: Path, body: object) -> str:
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return str(path)


def test_a_written_name_comes_before_globs_and_the_first_glob_wins(tmp_path: Path) -> None:
    """A name that holds glob characters itself is still found as it is written."""
    rows = {"*.mlp:output": "b s h", "*": "b s h[tp]", "a.mlp:output": "t h", "x[0]": "n"}
    held = Layouts.load(write(tmp_path / "l", {"target": rows}))
    assert held.of("target", "a.mlp:output") == "t h"
    assert held.of("target", "b.mlp:output") == "b s h"
    assert held.of("target", "other") == "b s h[tp]"
    assert held.of("target", "x[0]") == "n"
    assert held.of("baseline", "other") == ""
    assert Layouts.load("").of("target", "other") == "" == Layouts.load("").told


def test_thousands_of_names_cost_one_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only globs are tried one after the other; names that hold none are never walked over."""
    rows = {f"layer.{i}": "t h" for i in range(20_000)} | {"*.x": "t"}
    held = Layouts.load(write(tmp_path / "l", {"target": rows}))
    tried = []
    monkeypatch.setattr(
        "twinrun.grafting.layouts.fnmatchcase", lambda name, glob: tried.append(glob)
    )
    assert held.of("target", "layer.19999") == "t h" and tried == []
    assert held.of("target", "nothing") == "" and tried == ["*.x"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """Unknown sides, wrong types, dims that do not parse, names twice: one error with all of them."""
    text = """{"baselin": {}, "baseline": [1], "target":
      {"a": "t h[", "b": 3, "c": "t t", "": "t", "d": "t", "d": "h"}}"""
    with pytest.raises(ValueError) as caught:
        Layouts.load(write(tmp_path / "l", text))
    told = str(caught.value)
    for word in (
        "7 problems",
        "'baselin'",
        "list, no object",
        "'a'",
        "'b': int",
        "'c'",
        "empty name",
        "'d' twice",
    ):
        assert word in told, told
    with pytest.raises(UsageError) as caught:
        Settings("target", b2t="x", log="loud", layouts=str(tmp_path / "l")).check()
    assert "--graft-layouts" in str(caught.value) and "'loud'" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "{",
        '{"target": null}',
        "3",
        "\ud800",
        '{"target": {"a": "%s"}}' % ("x " * 9000),
    ],
)
def test_hostile_contents_are_a_usage_error(tmp_path: Path, text: str) -> None:
    """Nothing else escapes, however deep or long."""
    path = tmp_path / "l"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError):
        Layouts.load(str(path))


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe would be waited for, a device never ends."""
    os.mkfifo(tmp_path / "pipe")
    for path in (
        str(tmp_path / "pipe"),
        "/dev/zero",
        str(tmp_path),
        str(tmp_path / "none"),
        "a\0b",
    ):
        with pytest.raises(UsageError):
            Layouts.load(path)


def test_two_sides_compare_contents_not_paths(tmp_path: Path) -> None:
    """Spaces do not matter, the order of globs does."""
    one = write(tmp_path / "1", '{"target": {"a*": "t", "b*": "h"}}')
    same = write(tmp_path / "2", '{ "target" : {"a*":"t",  "b*":"h"} }')
    other = write(tmp_path / "3", '{"target": {"b*": "h", "a*": "t"}}')
    told = [Settings("target", b2t="x", layouts=path).compared() for path in (one, same, other)]
    assert difference(told[0], told[1], "a", "b") is None
    assert "sha256" in (difference(told[0], told[2], "a", "b") or "")
