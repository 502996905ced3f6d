"""How far right runs of one model lie apart, beside the first-order floor that the compare allows.

python -m benchmarks.floors [--quick] [--work DIR]

Each case is a random Llama of transformers, captured twice: as it is, and in a way that is as right -
row-parallel projections summed over 2 or 4 parts as tensor-parallel ranks do, every matrix product
summed in another order, or attention by another kernel. Forward, backward and gradients of weights. A row of the table is one case and variant: how many of its points are equal, close and
undecided, and the largest distance in units of the roundoff u and of the floor. Writes
benchmarks/results/floors.json with machine and versions.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import transformers
from torch import nn
from torch.nn.functional import linear

import twinrun as tr
from twinrun.comparison.result import Result
from twinrun.numerics import floor as constants
from twinrun.numerics.dtypes import format_of

RESULTS = Path(__file__).parent / "results" / "floors.json"
ROWS, WIDTH, VOCABULARY = 2, 32, 512


@dataclass(frozen=True)
class Case:
    """One model: its dtype, depth and width."""

    dtype: str
    layers: int
    hidden: int
    taps: str = "modules"


@dataclass(frozen=True)
class Line:
    """One row of the table; distances are the largest of any point."""

    dtype: str
    layers: int
    hidden: int
    taps: str
    variant: str
    points: int
    equal: int
    close: int
    undecided: int
    differs: int
    first_l2_in_u: float
    last_l2_in_u: float
    largest_l2_in_u: float
    largest_l2_in_floors: float
    largest_worst_in_floors: float
    median_l2_in_floors: float


CASES = [
    *(Case(dtype, layers, hidden) for dtype in ("float32", "bfloat16", "float16")
      for layers, hidden in ((2, 64), (8, 256), (32, 128))),
    Case("float32", 4, 1024), Case("bfloat16", 4, 1024),
    Case("bfloat16", 32, 256, "blocks"), Case("float32", 32, 256, "blocks"),
    Case("float32", 32, 256, "leaves"),
]  # fmt: skip
QUICK = [Case("float32", 2, 64), Case("bfloat16", 8, 128)]
VARIANTS = ("2 parts", "4 parts", "other order", "sdpa")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Noise of right runs beside the first-order floor."
    )
    parser.add_argument("--quick", action="store_true", help="two small cases")
    parser.add_argument("--work", help="where captures go (a temporary directory)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        cases = QUICK if given.quick else CASES
        lines = [line for case in cases for line in measure(case, Path(work))]
    show(lines)
    if not given.quick:
        write(lines)


def measure(case: Case, work: Path) -> Iterator[Line]:
    """Capture a case and each of its variants, and compare."""
    torch.manual_seed(0)
    model = build(case)
    tokens = torch.randint(0, VOCABULARY, (ROWS, WIDTH))
    record(model, tokens, work / "baseline", case.taps)
    for variant in VARIANTS:
        with varied(model, variant):
            record(model, tokens, work / "target", case.taps)
        yield judged(case, variant, tr.compare(work / "baseline", work / "target"))


def build(case: Case) -> nn.Module:
    """A random Llama; the seed is the caller's."""
    settings = transformers.LlamaConfig(
        hidden_size=case.hidden, intermediate_size=3 * case.hidden, num_hidden_layers=case.layers,
        num_attention_heads=8, num_key_value_heads=4, vocab_size=VOCABULARY,
        attn_implementation="eager",
    )  # fmt: skip
    return transformers.LlamaForCausalLM(settings).to(getattr(torch, case.dtype))


def record(model: nn.Module, tokens: torch.Tensor, out: Path, taps: str) -> None:
    """One forward and backward pass."""
    model.zero_grad()
    with tr.capture(out, overwrite=True), tr.watch(model, taps=taps):
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        tr.dump_gradients(model)


@contextmanager
def varied(model: nn.Module, variant: str) -> Iterator[None]:
    """The same model, computed in another way that is as right."""
    if variant == "sdpa":
        model.set_attn_implementation("sdpa")
        yield
        model.set_attn_implementation("eager")
        return
    changed = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if variant == "other order":
            order = torch.randperm(module.in_features)
            module.forward = partial(shuffled, held=module, order=order)  # type: ignore[method-assign]
        elif name.endswith(("o_proj", "down_proj")):
            parts = int(variant.split()[0])
            module.forward = partial(summed, held=module, parts=parts)  # type: ignore[method-assign]
        else:
            continue
        changed.append(module)
    yield
    for module in changed:
        del module.forward


def shuffled(input: torch.Tensor, held: nn.Linear, order: torch.Tensor) -> torch.Tensor:
    """The product with its terms in another order."""
    return linear(input[..., order], held.weight[:, order])


def summed(input: torch.Tensor, held: nn.Linear, parts: int) -> torch.Tensor:
    """The product as a sum of partial products in the tensors' own dtype."""
    pieces = zip(input.chunk(parts, -1), held.weight.chunk(parts, -1), strict=True)
    first, *others = (linear(a, b) for a, b in pieces)
    for other in others:
        first = first + other
    return first


def judged(case: Case, variant: str, result: Result) -> Line:
    """One row of the table from a comparison."""
    held = [row for row in result.rows if row.floor is not None and row.floor.kind == "first-order"]
    l2 = [row.measures.relative_l2 for row in held if row.measures]
    worst = [row.measures.worst.value / row.floor.worst if row.measures and row.measures.worst else 0
             for row in held if row.floor]  # fmt: skip
    ratios = [row.measures.relative_l2 / row.floor.l2 for row in held if row.measures and row.floor]
    forward = [row for row in held if row.kind == "activation" and row.measures]
    unit = format_of(case.dtype).roundoff
    moved = [row.measures.relative_l2 for row in forward if row.measures and row.measures.differing]
    return Line(
        **asdict(case), variant=variant, points=len(held),
        equal=result.counts["equal"], close=result.counts["close"],
        undecided=result.counts["undecided"], differs=result.counts["differs"],
        first_l2_in_u=moved[0] / unit if moved else 0.0,
        last_l2_in_u=moved[-1] / unit if moved else 0.0,
        largest_l2_in_u=max(l2) / unit,
        largest_l2_in_floors=max(ratios),
        largest_worst_in_floors=max(worst),
        median_l2_in_floors=sorted(ratios)[len(ratios) // 2],
    )  # fmt: skip


def show(lines: list[Line]) -> None:
    """The table; distances in u, then in floors."""
    print(f"{'dtype':9} {'layers':>6} {'hidden':>6} {'taps':8} {'variant':12} {'points':>6} {'equal':>6} "
          f"{'close':>6} {'undec.':>6} {'differ':>6} | {'first u':>8} {'last u':>8} {'max u':>8} | "
          f"{'max':>6} {'median':>6} {'worst':>6}")  # fmt: skip
    for one in lines:
        print(f"{one.dtype:9} {one.layers:6} {one.hidden:6} {one.taps:8} {one.variant:12} {one.points:6} "
              f"{one.equal:6} {one.close:6} {one.undecided:6} {one.differs:6} | {one.first_l2_in_u:8.2f} "
              f"{one.last_l2_in_u:8.2f} {one.largest_l2_in_u:8.2f} | {one.largest_l2_in_floors:6.2f} "
              f"{one.median_l2_in_floors:6.2f} {one.largest_worst_in_floors:6.2f}")  # fmt: skip


def write(lines: list[Line]) -> None:
    """The table as JSON, with the constants of the formula and what made it."""
    names = ("ROUNDING", "TERM", "START", "PER_BLOCK", "MARGIN", "TAIL")
    RESULTS.parent.mkdir(exist_ok=True)
    held = {
        "command": "python -m benchmarks.floors",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "constants": {name: getattr(constants, name) for name in names},
        "lines": [asdict(one) for one in lines],
    }
    RESULTS.write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    main()
