"""The demo, whole: real subprocesses, a real tensor-parallel model, a planted fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the demo needs the extra twinrun[demo]")

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(1200)]


def ran(*words: str) -> str:
    """Run Python with these words; its stdout. Both streams are shown when it fails."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, (
        f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


def digests(text: str) -> list[str]:
    """The lines in which the program tells its outputs and its random state, by rank."""
    return sorted(line.strip() for line in text.splitlines() if line.strip().startswith("rank "))


def test_the_demo_finds_what_it_planted_and_changes_nothing(tmp_path: Path) -> None:
    """The fault is found by name with its hint, and the observed runs have the bits of unobserved ones."""
    out = tmp_path / "demo"
    told = ran("-m", "twinrun", "demo", "--out", str(out))
    assert "FIRST DIVERGENCE   model.layers.2.mlp.down_proj:output   step 0" in told
    assert "found exactly what was planted" in told

    program, model = str(out / "program.py"), str(out / "model")
    plain = ran(program, "run", model)
    spread = ran("-m", "torch.distributed.run", "--nproc-per-node", "2", program, "run", model,
                 "--drop-all-reduce", "2.down_proj")  # fmt: skip
    assert len(digests(plain)) == 1
    assert len(digests(spread)) == 2
    assert digests(told) == sorted(digests(plain) + digests(spread))


def test_the_clean_demo_agrees(tmp_path: Path) -> None:
    """Without the fault the same runs end in agreement."""
    told = ran("-m", "twinrun", "demo", "--clean", "--out", str(tmp_path / "demo"))
    assert "AGREE" in told
    assert "the clean runs agree" in told
