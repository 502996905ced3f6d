"""What blame costs beside a plain run of the same program: every pass, and the ratio of the isolated one.

python benchmarks/blame.py [--layers 32] [--width 512] [--tokens 256] [--ranks 2]

A stack of transformer-like blocks in float32 runs plain, then `twinrun blame` runs against the same
program with one fault planted. Checked first: the fault is named at its leaf and healed. Floor: the
isolated pass runs the program once and moves every block's inputs and outputs once, so 1 x.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import twinrun

RESULTS = Path(__file__).with_name("results") / "blame.json"
FAULT = "blocks.{}.act"
PROGRAM = """
import argparse, torch
from torch import nn
given = argparse.ArgumentParser()
for name in ("layers", "width", "tokens", "fault"):
    given.add_argument(f"--{name}", type=int, default=-1)
given = given.parse_args()
torch.manual_seed(0)
torch.set_num_threads(1)
W = given.width
class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(W, W, bias=False) for _ in range(4))
    def forward(self, x):
        q, k, v = (f(x).view(*x.shape[:2], 8, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).flatten(2))
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.mix = nn.LayerNorm(W), nn.LayerNorm(W), Mix()
        self.up, self.act, self.down = nn.Linear(W, 4 * W), nn.GELU(), nn.Linear(4 * W, W)
    def forward(self, x):
        x = x + self.mix(self.one(x))
        return x + self.down(self.act(self.up(self.two(x))))
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(Block() for _ in range(given.layers)), nn.Linear(W, 64)
    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)
model = Model()
if given.fault >= 0:
    model.blocks[given.fault].act.approximate = "tanh"
with torch.no_grad():
    model(torch.randn(4, given.tokens, W))
"""


def main() -> None:
    """Run, check, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("layers", 32), ("width", 512), ("tokens", 256), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="twinrun-blame-cost-") as held:
        row = measure(given, Path(held))
    print(f"plain run        {row['plain_s']:6.1f} s   (median of {given.repeats})")
    for one in row["passes"]:
        print(
            f"pass {one['number']} {one['seconds']:10.1f} s   {one['seconds'] / row['plain_s']:5.2f} x   {one['purpose']}"
        )
    print(f"isolated pass    {row['isolated_ratio']:6.2f} x   (mark 3)")
    print(
        f"runs to the leaf {row['runs_to_leaf']:6d}     (mark 6), with the proof {len(row['passes'])}"
    )
    RESULTS.write_text(json.dumps(row, indent=1) + "\n")


def measure(given: argparse.Namespace, place: Path) -> dict:
    program = place / "program.py"
    program.write_text(PROGRAM)
    sizes = [f"--{name}={getattr(given, name)}" for name in ("layers", "width", "tokens")]
    command = [sys.executable, str(program), *sizes]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    plain = sorted(_timed(command, environ) for _ in range(given.repeats))[given.repeats // 2]
    at = given.layers // 2
    told = subprocess.run(
        [sys.executable, "-m", "twinrun", "blame", "--json", "--baseline", " ".join(command),
         "--target", " ".join([*command, f"--fault={at}"]), "--work", str(place / "work")],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    passes = [one for one in lines if one["type"] == "pass"]
    suspects = [one for one in lines if one["type"] == "suspect"]
    assert [one["module"] for one in suspects] == [FAULT.format(at)], told.stdout + told.stderr
    assert suspects[0]["proof"]["state"] == "healed"
    isolated = next(one for one in passes if "modules, each given" in one["purpose"])
    leaf = next(one for one in passes if "every module inside" in one["purpose"])
    return {
        "plain_s": plain,
        "passes": [{k: one[k] for k in ("number", "side", "purpose", "seconds")} for one in passes],
        "isolated_ratio": isolated["seconds"] / plain,
        "runs_to_leaf": leaf["number"],
        "sizes": {name: getattr(given, name) for name in ("layers", "width", "tokens")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"twinrun": twinrun.__version__, "torch": torch.__version__,
                     "python": platform.python_version()},
        "command": f"python benchmarks/blame.py {' '.join(sys.argv[1:])}".rstrip(),
    }  # fmt: skip


def _timed(command: list[str], environ: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env=environ, check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
