"""``twinrun bench``: what lies in a checkout is run there, and refused clearly elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinrun.cli import bench
from twinrun.cli.main import run


@pytest.mark.parametrize("name", ["graft", "capture", "compare"])
def test_outside_a_checkout_it_says_where_to_run_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An installed package has no benchmarks: the error names what to run instead."""
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "a" / "b" / "c" / "bench.py"))
    assert run(["bench", name]) == 2
    assert f"python benchmarks/{name}.py" in capsys.readouterr().err


def test_options_and_the_exit_code_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark gets every word as it was typed, in the caller's own directory."""
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "a" / "b" / "c" / "bench.py"))
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "graft.py").write_text(
        "import sys\nopen('told', 'w').write(' '.join(sys.argv[1:]))\nsys.exit(7)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run(["bench", "graft", "--mib", "1", "--help"]) == 7
    assert (tmp_path / "told").read_text() == "--mib 1 --help"
