"""A capture is hostile input: whatever was done to its files, only CaptureError comes out."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import twinrun as tr
from twinrun.errors import CaptureError
from twinrun.recorder.reader import Capture, open_capture


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small capture of two segments."""
    with tr.capture(tmp_path / "run") as recorder:
        tr.dump("a", torch.arange(40.0), dims="t", layer=1)
        tr.dump("b", torch.arange(5))
        recorder.flush()
        tr.dump("c", torch.ones(3, 3).bfloat16())
    return tmp_path / "run"


def file(run: Path, name: str) -> Path:
    """A file of the run's one process."""
    return next(run.glob(f"processes/*/{name}"))


def edit(path: Path, change: Callable[[dict[str, Any]], object], line: int = 0) -> None:
    """Change one JSON object of a file of lines, or the only one."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    held = json.loads(lines[line])
    change(held)
    lines[line] = json.dumps(held)
    path.write_text("\n".join(lines) + "\n")


def read_all(run: Path | str) -> Capture:
    """Open it and read every tensor."""
    capture = open_capture(run)
    for record in capture.records:
        if record.has_payload:
            capture.tensor(record).float().sum()
        capture.release(record)
    return capture


def test_missing_and_empty(tmp_path: Path) -> None:
    """A path that does not exist, a file, an empty directory: each is named."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, what in {
        "none": "does not exist",
        "file": "does not exist",
        "empty": "no capture",
    }.items():
        with pytest.raises(CaptureError, match=what):
            open_capture(tmp_path / name)


def test_a_newer_format_is_refused_with_both_versions(run: Path) -> None:
    """A capture that a newer Twinrun wrote is not guessed at."""
    edit(run / "run.json", lambda held: held.update(format=7, twinrun="9.1"))
    with pytest.raises(CaptureError, match=r"format 7.*up to format 1") as caught:
        open_capture(run)
    assert "9.1" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1}, {"number": True}, {"number": 10**400}, {"number": 1.0}, {"order": "3"},
        {"name": 5}, {"name": "\ud800"}, {"name": "x" * 100_000}, {"kind": "thing"}, {"role": None},
        {"root": 0}, {"root": -2}, {"tags": [1]}, {"tags": {"a": [1]}}, {"tags": {"a": 10**40}},
        {"mesh": {"tp": [2, 2]}}, {"mesh": {"tp": 1}}, {"mesh": {"tp": [0, 0]}}, {"dtype": "object"},
        {"dtype": "Tensor"}, {"dtype": "__class__"}, {"shape": [-40]}, {"shape": [2**62, 2**62]},
        {"shape": [40.0]}, {"shape": "40"}, {"shape": [1] * 100}, {"nbytes": 159}, {"nbytes": -1},
        {"offset": 1}, {"offset": -64}, {"offset": "65536"}, {"begun": 99}, {"sources": [0]},
        {"sources": [-1]}, {"parents": 3}, {"stats": [1]}, {"stats": {"a": "b"}}, {"reduction": -1},
        {"recompute": 1}, {"call": None}, {"mark": []}, {"dims": 3}, {"surprise": 1},
    ],
)  # fmt: skip
def test_wrong_fields_name_the_file_and_the_line(run: Path, change: dict[str, Any]) -> None:
    """A field of another type, out of bounds, or at odds with the others is an error at its line."""
    edit(file(run, "000000.jsonl"), lambda held: held.update(change))
    with pytest.raises(CaptureError, match=r"000000\.jsonl:1"):
        read_all(run)


def test_a_payload_that_would_lie_far_outside(run: Path) -> None:
    """A record that claims more bytes than its file has is listed, reported, and not read."""
    far = {"shape": [2**58], "nbytes": 2**61}
    edit(file(run, "000000.jsonl"), lambda held: held.update(far), line=1)
    assert "cut off" in " ".join(open_capture(run).problems)
    with pytest.raises(CaptureError, match="outside it"):
        read_all(run)


@pytest.mark.parametrize(
    "field", ["number", "name", "kind", "dtype", "shape", "nbytes", "order", "call"]
)
def test_missing_fields(run: Path, field: str) -> None:
    """A required field that is missing is named."""
    edit(file(run, "000000.jsonl"), lambda held: held.pop(field))
    with pytest.raises(CaptureError, match=f"'{field}' is missing"):
        open_capture(run)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "3", '{"number":NaN}', "\\", "[" * 100_000, '{"a":' * 100_000,
        '{"number":' + "9" * 5000 + "}", "\x00",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["run.json", "process.json", "000000.jsonl"])
def test_what_is_no_json_object(run: Path, name: str, text: str) -> None:
    """Empty, cut, deep, huge or other JSON in any of the three files."""
    path = run / name if name == "run.json" else file(run, name)
    path.write_text(text + "\n")
    with pytest.raises(CaptureError, match=name.replace(".", r"\.")):
        open_capture(run)


def test_bytes_that_are_no_utf8(run: Path) -> None:
    """Other encodings are an error of the file that holds them."""
    for path in (file(run, "000001.jsonl"), file(run, "process.json"), run / "run.json"):
        held = path.read_bytes()
        path.write_bytes(held.replace(b'"', b'"\xff', 1))
        with pytest.raises(CaptureError, match=path.name):
            open_capture(run)


def test_overlapping_payloads(run: Path) -> None:
    """Two records of one segment that share bytes are refused."""
    edit(file(run, "000000.jsonl"), lambda held: held.update(offset=65536), line=1)
    with pytest.raises(CaptureError, match="inside the payload"):
        open_capture(run)


def test_numbers_that_repeat(run: Path) -> None:
    """A record number that comes twice in a process is refused."""
    edit(file(run, "000001.jsonl"), lambda held: held.update(number=1))
    with pytest.raises(CaptureError, match="after record 1"):
        open_capture(run)


@pytest.mark.parametrize("left", [0, 4, 8, 100, 65_536, 65_600, 65_750])
def test_a_segment_that_was_cut(run: Path, left: int) -> None:
    """A payload file cut anywhere costs the records that it no longer holds, and is reported."""
    os.truncate(file(run, "000000.safetensors"), left)
    capture = open_capture(run)
    lost = []
    for record in capture.records:
        try:
            capture.tensor(record)
        except CaptureError as error:
            lost.append(record.name)
            assert "cut" in str(error) or "mapped" in str(error)
    assert lost == (["b"] if left == 65_750 else ["a", "b"])
    assert "cut" in " ".join(capture.problems)


def test_an_index_that_was_cut(run: Path) -> None:
    """An index without its last newline was not written by Twinrun."""
    path = file(run, "000000.jsonl")
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(CaptureError, match="cut in its last line"):
        open_capture(run)


def test_a_segment_of_which_half_is_there(run: Path) -> None:
    """A segment counts only with both of its files; the other segments are read."""
    file(run, "000000.safetensors").unlink()
    capture = read_all(run)
    assert [record.name for record in capture.records] == ["c"]
    assert "000000.jsonl" in " ".join(capture.problems)
    file(run, "000000.jsonl").unlink()
    assert "segment 000000 is missing" in " ".join(read_all(run).problems)


def test_links_are_refused(run: Path, tmp_path: Path) -> None:
    """No file or directory of a capture may be a link to something outside of it."""
    secret = tmp_path / "secret"
    for name in ("000000.jsonl", "000000.safetensors", "process.json"):
        path = file(run, name)
        path.rename(secret)
        path.symlink_to(secret)
        with pytest.raises(CaptureError):
            read_all(run)
        path.unlink()
        secret.rename(path)
    process = file(run, "process.json").parent
    process.rename(tmp_path / "elsewhere")
    process.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CaptureError, match="no directory of its own"):
        open_capture(run)


def test_special_files_are_not_waited_for(run: Path) -> None:
    """A pipe in a file's place is refused, not read."""
    for name in ("000000.jsonl", "000000.safetensors", "process.json"):
        path = file(run, name)
        held = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(CaptureError, match="regular"):
            open_capture(run)
        path.unlink()
        path.write_bytes(held)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("process.json", {"rank": -1}), ("process.json", {"rank": "0"}),
        ("process.json", {"roots": {}}), ("process.json", {"roots": [3]}),
        ("process.json", {"mesh": {"tp": [3, 2]}}), ("process.json", {"argv": "x"}),
        ("process.json", {"seconds": "x"}), ("process.json", {"reports": []}),
        ("process.json", {"format": 2}), ("process.json", {"problems": [3]}),
        ("run.json", {"command": "x"}), ("run.json", {"options": []}), ("run.json", {"mesh": "tp"}),
        ("run.json", {"exit_code": "1"}), ("run.json", {"format": "1"}), ("run.json", {"format": 0}),
        ("run.json", {"problems": None}), ("run.json", {"state": 3}),
    ],
)  # fmt: skip
def test_wrong_manifests(run: Path, name: str, change: dict[str, Any]) -> None:
    """run.json and process.json are checked as the index is."""
    path = run / name if name == "run.json" else file(run, name)
    edit(path, lambda held: held.update(change))
    with pytest.raises(CaptureError, match=name):
        open_capture(run)


def test_a_rank_outside_the_mesh_is_reported(run: Path) -> None:
    """--mesh that does not hold a rank leaves it without coordinates and says so."""
    edit(run / "run.json", lambda held: held.update(mesh="tp=2"))
    edit(file(run, "process.json"), lambda held: held.update(rank=5))
    capture = open_capture(run)
    assert dict(capture.records[0].mesh) == {}
    assert "rank 5 has no place" in " ".join(capture.problems)


def test_fields_may_come_in_any_order(run: Path) -> None:
    """The order in a line is the writer's habit, not the format's rule."""
    before = [record.point for record in open_capture(run).records]
    for path in run.glob("processes/*/*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        turned = [json.dumps(dict(reversed(line.items()))) for line in lines]
        path.write_text("\n".join(turned) + "\n")
    capture = read_all(run)
    assert [record.point for record in capture.records] == before


def test_a_tag_called_like_a_field_does_not_confuse_the_reader(tmp_path: Path) -> None:
    """Tags may be called call, number or offset."""
    with tr.capture(tmp_path / "run"):
        for value in (1, 2, 1):
            tr.dump("x", torch.ones(1), call=value, number=value, offset=64)
    tags = [dict(record.tags) for record in open_capture(tmp_path / "run").records]
    assert tags == [{"call": v, "number": v, "offset": 64} for v in (1, 2, 1)]


def test_random_bytes(run: Path, tmp_path: Path) -> None:
    """Random changes anywhere: CaptureError or a capture, never anything else."""
    chance = random.Random(7)
    files = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    for _ in range(150):
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)
        path = copy / chance.choice(files)
        data = bytearray(path.read_bytes())
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(min(len(data), 3000))
            data[at] = chance.randrange(256)
        path.write_bytes(data)
        with contextlib.suppress(CaptureError):
            read_all(copy)
        shutil.rmtree(copy)
