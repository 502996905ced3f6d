"""The push protocol under spin: no stale read, no lost clear, no deadlock (``push.pml``)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("push.pml")

pytestmark = pytest.mark.skipif(
    not (shutil.which("spin") and shutil.which("gcc")),
    reason="spin or gcc is not installed (apt-get install spin gcc)",
)


def verify(folder: Path, *defines: str) -> str:
    """What the verifier of the model with these macros prints; it searches every state."""
    flags = [f"-D{name}" for name in defines]
    subprocess.run(["spin", "-a", *flags, str(MODEL)], cwd=folder, check=True, timeout=60)
    compile_ = ["gcc", "-w", "-O2", "-DSAFETY", "-DHC4", "-DMEMLIM=3000", "-o", "pan", "pan.c"]
    subprocess.run(compile_, cwd=folder, check=True, timeout=120)
    done = subprocess.run(
        ["./pan", "-m400000"], cwd=folder, capture_output=True, text=True, timeout=280
    )
    return done.stdout


def holds(told: str) -> bool:
    """No error, and the search was cut nowhere."""
    return "errors: 0" in told and "max search depth too small" not in told


@pytest.mark.parametrize("shots", [(), ("TWO_SHOT",)])
def test_two_ranks_hold_for_four_calls(tmp_path: Path, shots: tuple[str, ...]) -> None:
    """Both algorithms, every slot used twice, any rank a call ahead of the other."""
    assert holds(verify(tmp_path, "WORLD=2", "CALLS=4", *shots))


@pytest.mark.slow
def test_three_ranks_hold_for_three_calls(tmp_path: Path) -> None:
    """One slot is used again while the third rank may still be in the call before."""
    assert holds(verify(tmp_path, "WORLD=3", "CALLS=3"))


@pytest.mark.parametrize("fault", ["ONE_SLOT", "NO_END"])
def test_planted_faults_are_found(tmp_path: Path, fault: str) -> None:
    """One slot instead of two, or a next call before this one's stores are done, breaks it."""
    told = verify(tmp_path, "WORLD=2", "CALLS=4", fault)
    assert "errors: 1" in told and "assertion violated" in told
