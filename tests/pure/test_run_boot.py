"""The boot file: any Python parses it, and it steps aside where it must."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import twinrun

BOOT = Path(twinrun.__file__).parent / "recorder" / "boot"


def test_any_python_parses_it() -> None:
    """No syntax newer than Python 2.7: no f-strings, annotations, keyword-only arguments or non-ASCII."""
    text = (BOOT / "sitecustomize.py").read_text(encoding="ascii")
    tree = ast.parse(text, feature_version=(3, 4))
    for node in ast.walk(tree):
        assert not isinstance(
            node, (ast.JoinedStr, ast.AnnAssign, ast.AsyncFunctionDef, ast.Nonlocal)
        )
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None
            assert not node.args.kwonlyargs
            assert all(argument.annotation is None for argument in node.args.args)
        if isinstance(node, ast.Raise):
            assert node.cause is None


def test_directory_holds_nothing_else() -> None:
    """It is the first directory of PYTHONPATH: whatever lay there would shadow the program's own."""
    assert [path.name for path in BOOT.iterdir() if path.name != "__pycache__"] == [
        "sitecustomize.py"
    ]


def _start(code: str, notes: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    held = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(BOOT), "TWINRUN_NOTES": str(notes)}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=held | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_old_python_steps_aside(tmp_path: Path) -> None:
    """Below 3.10 nothing is loaded, the program runs, and a note says why."""
    text = (BOOT / "sitecustomize.py").read_text()
    old = tmp_path / "old"
    old.mkdir()
    pretend = text.replace("sys.version_info < (3, 10)", "True")
    assert pretend != text
    (old / "sitecustomize.py").write_text(pretend)
    ended = _start("print('ran')", tmp_path, PYTHONPATH=str(old), TWINRUN_OUT=str(tmp_path / "a"))
    assert ended.stdout == "ran\n"
    note = json.loads(next(tmp_path.glob("*.jsonl")).read_text())
    assert note["kind"] == "aside"
    assert "older than 3.10" in note["reason"]


def test_outside_of_a_run_nothing_happens(tmp_path: Path) -> None:
    """Without TWINRUN_OUT the boot file loads nothing and leaves sys.path as the program's."""
    code = (
        "import sys; print('_twinrun_arrival' in sys.modules, any('boot' in p for p in sys.path))"
    )
    assert _start(code, tmp_path).stdout == "False False\n"


def test_waiting_for_torch_costs_no_module(tmp_path: Path) -> None:
    """In a run, a process that never imports torch loads the two start-up files and no other."""
    code = "import sys; print(sorted(m for m in sys.modules if 'twinrun' in m or m in ('typing', 're')))"
    ended = _start(code, tmp_path, TWINRUN_OUT=str(tmp_path / "a"))
    assert ended.stdout == "['_twinrun_arrival']\n", ended.stderr


def test_failing_sitecustomize_is_the_program_s(tmp_path: Path) -> None:
    """An error in the program's own sitecustomize is shown as Python shows it."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import no_such_module\n")
    ended = _start("print('ran')", tmp_path, PYTHONPATH=f"{BOOT}:{own}")
    assert ended.stdout == "ran\n"
    assert "no_such_module" in ended.stderr
