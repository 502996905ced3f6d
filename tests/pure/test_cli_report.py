"""``--report`` and ``--plots`` of compare: what they refuse, what they write, and what they leave alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import twinrun as tr
from twinrun.cli import reporting
from twinrun.cli.main import run


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two small captures that part at ``b``."""
    place = tmp_path_factory.mktemp("secret-place")
    for name, wrong in (("one", 0.0), ("two", 1.0)):
        with tr.capture(str(place / name)):
            tr.dump("a", torch.arange(256.0).view(4, 64))
            tr.dump("b", torch.arange(256.0).view(4, 64) + wrong)
    return str(place / "one"), str(place / "two")


def test_the_report_does_not_change_what_is_printed(
    captures: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--report leaves stdout, JSON lines and the exit code as they are; only stderr names the file."""
    for options in ([], ["--json"]):
        assert run(["compare", *captures, *options]) == 1
        plain = capsys.readouterr()
        report = tmp_path / "out.html"
        assert run(["compare", *captures, *options, "--report", str(report)]) == 1
        told = capsys.readouterr()
        assert told.out == plain.out
        assert plain.err == "" and f"report in {report}" in told.err
        if options:
            assert all(json.loads(line) for line in told.out.splitlines())
        text = report.read_text(encoding="utf-8")
        assert "FIRST DIVERGENCE" in text and '"heat":[4,64,' in text


def test_paths_are_shown_only_when_asked_for(captures: tuple[str, str], tmp_path: Path) -> None:
    """The captures' directory is in the page with --report-paths and nowhere without."""
    report = tmp_path / "out.html"
    run(["compare", *captures, "--report", str(report)])
    assert "secret-place" not in report.read_text(encoding="utf-8")
    run(["compare", *captures, "--report", str(report), "--report-paths"])
    assert captures[0] in report.read_text(encoding="utf-8")


def test_pictures_are_taken_only_for_a_report(
    captures: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """compare without --report never makes the second pass."""
    monkeypatch.setattr(reporting, "_pictures", lambda *_: pytest.fail("drew without being asked"))
    assert run(["compare", *captures]) == 1


def test_what_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report in no directory, or plots without matplotlib, exit 2 and say what to do; nothing is opened."""
    assert run(["compare", "no", "no", "--report", str(tmp_path / "no" / "out.html")]) == 2
    assert "no directory that exists" in capsys.readouterr().err
    monkeypatch.setattr(reporting, "find_spec", lambda _: None)
    assert run(["compare", "no", "no", "--plots", str(tmp_path)]) == 2
    assert "twinrun[plots]" in capsys.readouterr().err


def test_plots_are_pngs(captures: tuple[str, str], tmp_path: Path) -> None:
    """--plots writes the chart and one file a pictured point."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (twinrun[plots])")
    assert run(["compare", *captures, "--plots", str(tmp_path / "plots")]) == 1
    made = sorted((tmp_path / "plots").iterdir())
    assert [path.name for path in made] == ["error.png", "point-2.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)
