"""``twinrun show`` on captures that the recorder wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import twinrun as tr
from twinrun.cli.main import run


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two steps of three dumps, one of them large."""
    path = tmp_path_factory.mktemp("runs") / "a"
    with tr.capture(str(path)):
        for step in range(2):
            tr.dump("attn_out", torch.arange(6.0).reshape(2, 3) + step, dims="t h", layer=3)
            tr.dump("big", torch.full((1000, 1000), float(step)))
            tr.dump("odd[0]", torch.tensor([step]))
            tr.step()
    return str(path)


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run(["show", *words]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_a_capture_is_listed(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every point is listed once with its steps, dtype, shape and dims."""
    lines = told(capsys, capture).splitlines()
    assert lines[0].startswith(f"CAPTURE   {capture}")
    line = next(line for line in lines if line.endswith("attn_out"))
    assert line.split() == ["0-1", "0", "activation", "float32", "[2,", "3]", "t", "h", "48", "bytes", "attn_out"]  # fmt: skip


def test_one_tensor_is_shown(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An exact name shows layout, statistics and values of its first step."""
    out = told(capsys, capture, "attn_out")
    assert "TENSOR   attn_out   step 0" in out
    assert ["[1,", ":]", "3", "4", "5"] in [line.split() for line in out.splitlines()]
    assert "also at   step 1" in out
    assert "layer=3" in out


def test_step_and_index_choose(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--step shows another step, --at the values under an index, also as pasted from a report."""
    assert ["[1,", "0]", "4"] in [x.split() for x in told(capsys, capture, "attn_out", "--step", "1", "--at", "1,0").splitlines()]  # fmt: skip
    assert ["[1,", ":]", "3", "4", "5"] in [x.split() for x in told(capsys, capture, "attn_out", "--at", "[1]").splitlines()]  # fmt: skip


def test_a_glob_lists(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A glob lists the points that it takes; a name with a glob's characters is still a name."""
    out = told(capsys, capture, "a*")
    assert "attn_out" in out
    assert "big" not in out
    assert "TENSOR   odd[0]" in told(capsys, capture, "odd[0]")


def test_a_filter_narrows(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--filter and --step narrow the list."""
    out = told(capsys, capture, "--filter", "layer == 3", "--step", "1")
    assert out.splitlines()[-1].split()[0] == "1"
    assert "big" not in out


def test_json_lines(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--json gives one record a line, of one tensor with its statistics."""
    lines = [json.loads(line) for line in told(capsys, capture, "--json").splitlines()]
    assert [line["type"] for line in lines] == ["capture", "process"] + ["record"] * 6
    (one,) = [json.loads(line) for line in told(capsys, capture, "big", "--json").splitlines()]
    assert one["shape"] == [1000, 1000]
    assert one["statistics"]["zeros"] == 1_000_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attn_ot"], "did you mean attn_out?"),
        (["attn_out", "--step", "7"], "one of [0, 1]"),
        (["attn_out", "--at", "5"], "outside the tensor"),
        (["attn_out", "--at", "x"], "not an index"),
        (["--at", "1"], "needs the NAME"),
        (["attn_out", "--rank", "3"], "--rank 3"),
        (["--filter", "layer =="], "layer"),
    ],
)
def test_what_is_not_there_is_named(
    capture: str, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """A wrong name, step, index or filter exits 2 and says what there is."""
    assert said in told(capsys, capture, *words, code=2)


def test_a_missing_directory_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no capture is an error, not an empty list."""
    assert "absent" in told(capsys, str(tmp_path / "absent"), code=2)
