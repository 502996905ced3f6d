"""kill -9 in the middle of recording: what was sealed is whole, what was not is not there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.ranks

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_rounds.py"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("after_s", [0.0, 0.35, 1.3])
def test_a_killed_run_reads_back_what_it_sealed(after_s: float, tmp_path: Path) -> None:
    """Killed at any moment, a capture holds its first records bit for bit and calls itself incomplete."""
    spec = importlib.util.spec_from_file_location("kill_rounds", _SCRIPT)
    assert spec is not None and spec.loader is not None
    rounds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rounds)
    records, processes = rounds.one_round(tmp_path, after_s)
    assert processes <= 1
    assert records > 0 or after_s < 1
