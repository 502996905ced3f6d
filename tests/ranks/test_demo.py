"""The demo, whole: real subprocesses, a real tensor-parallel model, a planted fault."""

from __future__ import annotations

import os
import re
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


GOLDEN = Path(__file__).parent / "golden" / "demo-graft.txt"


def told_of(text: str, out: Path) -> str:
    """The demo's own lines and both verdicts: numbers masked, lines of ranks in a fixed order."""
    kept = []
    page = False
    for line in text.replace(str(out), "DIR").splitlines():
        page = page and not line.startswith(("the same", "How"))
        if line.strip() and (not page or line.startswith(("AGREE", "FIRST"))):
            kept.append(re.sub(r"(?<![\w.:])-?\d[\d.,]*(e[+-]\d+)?(?![\w.:])", "#", line))
        page = page or line.startswith("  $ twinrun compare")
    masked = re.sub(
        r"outputs [0-9a-f]{16}  random state [0-9a-f]{16}", "outputs #", "\n".join(kept)
    )
    blocks = re.findall(r"(?:^ {4}(?:rank|received) .*\n)+|.*\n", masked + "\n", re.M)
    return "".join("".join(sorted(block.splitlines(keepends=True))) for block in blocks)


def test_the_graft_demo_heals_by_the_faulty_point_only(tmp_path: Path) -> None:
    """One process's tensor at the faulty point makes the ranks agree; another layer's branch does not."""
    out = tmp_path / "demo"
    told = told_of(ran("-m", "twinrun", "demo", "graft", "--out", str(out)), out)
    if os.environ.get("ACCEPT_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(told, encoding="utf-8")
    assert told == GOLDEN.read_text(encoding="utf-8")
    # The whole residual stream after the fault heals too.
    whole = f"{sys.executable} {out}/program.py run {out}/model"
    spread = whole.replace(sys.executable, f"{sys.executable} -m torch.distributed.run --nproc-per-node 2")  # fmt: skip
    ran("-m", "twinrun", "graft", str(out / "healed/baseline"), "--target", f"{spread} --drop-all-reduce 2.down_proj",
        "--b2t", "name == 'model.layers.2:output'", "--taps", "modules", "--out", str(out / "stream"))  # fmt: skip
    from twinrun.comparison.compare import compare

    ill = compare(str(out / "healed/baseline"), str(out / "stream/target"))
    assert ill.verdict == "agree"
    assert {row.name for row in ill.rows if row.verdict == "healed"} == {
        "model.layers.2.mlp.down_proj:output",
        "model.layers.2.mlp:output",
    }
