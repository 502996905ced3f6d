"""What the demo takes for a success, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comparisons import agreement, close, differing, divergence, result, unmatched

from twinrun.cli import demo, demo_graft, demo_steps
from twinrun.cli.main import run
from twinrun.comparison.result import Divergence, Hint, Result


def planted(**changes: object) -> Result:
    """The result that the planted fault gives, with changes to its first divergence."""
    hint = Hint("sum", "an all-reduce over tp is missing after this point", 0.0)
    row = replace(differing(2, demo.PLANTED), hint=hint)
    row = replace(row, **changes)  # type: ignore[arg-type]
    return result([close(1, "a:output"), row], Divergence(row, 1, ()))


def test_what_was_planted_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    """The right point at step 0 with the right hint is what the fault run must give."""
    assert demo._judged(planted(), clean=False) == 0
    assert "found exactly what was planted" in capsys.readouterr().out


@pytest.mark.parametrize(
    "found",
    [
        agreement(),
        divergence(),
        planted(step=1),
        planted(hint=None),
        planted(hint=Hint("factor", "a constant factor of 2", 0.0)),
        replace(planted(), rows=(*planted().rows, unmatched(3, "x", "")), counts={"unmatched": 1}),
    ],
)
def test_anything_else_is_a_failure(found: Result, capsys: pytest.CaptureFixture[str]) -> None:
    """Another point, another step, another hint, or loose ends besides: the demo exits 1 and says why."""
    assert demo._judged(found, clean=False) == 1
    assert "NOT as expected" in capsys.readouterr().out


def test_the_clean_runs_must_agree() -> None:
    """With --clean only agreement is a success."""
    assert demo._judged(agreement(), clean=True) == 0
    assert demo._judged(divergence(), clean=True) == 1


def test_a_foreign_directory_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo writes only into a directory that is new, empty or its own."""
    (tmp_path / "thesis.txt").write_text("mine")
    assert run(["demo", "--out", str(tmp_path)]) == 2
    assert "not the demo's" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_missing_transformers_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without transformers the demo says what to install."""
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert run(["demo"]) == 2
    assert "pip install 'twinrun[demo]'" in capsys.readouterr().err


def test_the_program_is_written_where_it_can_be_read(tmp_path: Path) -> None:
    """The observed program lies in the demo's directory, and the directory is then the demo's own."""
    program = Path(demo.prepared(tmp_path / "demo"))
    assert program.read_text().startswith(demo_steps.MARK)
    assert demo.prepared(tmp_path / "demo") == str(program)


def test_the_graft_demo_judges_both_grafts(capsys: pytest.CaptureFixture[str]) -> None:
    """The right graft must heal, the wrong one must leave the fault where it was planted."""
    assert demo_graft.judged(agreement(), planted()) == 0
    assert demo_graft.judged(divergence(), planted()) == 1
    assert demo_graft.judged(agreement(), divergence()) == 1
    assert demo_graft.judged(agreement(), agreement()) == 1
    assert capsys.readouterr().out.count("NOT as expected") == 3


def test_a_clean_graft_demo_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing can be healed where no fault was planted."""
    assert run(["demo", "graft", "--clean"]) == 2
    assert "nothing to heal" in capsys.readouterr().err
