"""Made-up comparisons for the report's tests: one of each ending."""

from __future__ import annotations

from dataclasses import replace

from twinrun.comparison.result import (
    VERDICTS,
    Divergence,
    Extreme,
    Floor,
    Hint,
    Invariant,
    Measures,
    Operand,
    Result,
    Row,
    Side,
)

VERSIONS = {"transformers": "5.2.0", "torch": "2.13.0"}
BASELINE = Side("runs/tp1", 1, 1, 1, 214, 3_250_586, "", "python p.py", VERSIONS, True)
TARGET = Side("runs/tp2", 2, 2, 1, 428, 3_565_158, "tp=2", "torchrun p.py", VERSIONS, True)
FLOOR = Floor(1.2e-6, 2.4e-6, 16.0, "first-order", "float32, 128 terms, depth 7")


def operand(name: str, ranks: tuple[int, ...] = (0,), layout: str = "whole") -> Operand:
    return Operand(name, (2, 8, 128), "float32", "b s h", layout, ranks)


def close(position: int, name: str, l2: float = 2e-7) -> Row:
    """A point that agrees within rounding, or bit for bit when ``l2`` is 0."""
    measures = Measures(2048, l2 == 0, 0 if l2 == 0 else 1500, l2)
    verdict = "equal" if l2 == 0 else "close"
    return Row(
        position, 0, name, 0, False, "activation", verdict, verdict, "",
        operand(name), operand(name, (0, 1), "replicated"), measures, FLOOR, l2 / FLOOR.l2,
    )  # fmt: skip


def differing(position: int, name: str, l2: float = 0.76) -> Row:
    """A point that differs."""
    extreme = Extreme(0.3691, (1, 3, 17), 0.4713, 0.1022)
    measures = Measures(
        2048, False, 2048, l2, Extreme(3.4, (1, 3, 17), 0.4713, 0.1022), extreme, extreme, 0.65
    )
    return Row(
        position, 0, name, 0, False, "activation", "differs", "differs", "",
        operand(name), operand(name, (0, 1), "inferred"), measures, FLOOR, l2 / FLOOR.l2,
    )  # fmt: skip


def undecided(position: int, name: str) -> Row:
    return replace(differing(position, name, 4.1e-6), verdict="undecided", measured="undecided")


def unmatched(position: int, name: str, nearest: str) -> Row:
    return Row(
        position, 0, name, 0, False, "activation", "unmatched", "unmatched", "one side only",
        baseline=operand(name), nearest=nearest,
    )  # fmt: skip


def result(rows: list[Row], first: Divergence | None = None, **rest: object) -> Result:
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in VERDICTS}
    values: dict[str, object] = {
        "invariants": (), "undecided_from": None, "options": {"noise": ""}, "counts": counts,
    }  # fmt: skip
    return Result(BASELINE, TARGET, tuple(rows), first, **{**values, **rest})  # type: ignore[arg-type]


def divergence() -> Result:
    """A missing all-reduce: one hinted first divergence and what follows from it."""
    gate = close(1, "model.layers.0.mlp.gate:output")
    experts = replace(
        differing(2, "model.layers.0.mlp.experts:output"),
        inferred="target is a partial sum over tp",
        hint=Hint(
            "sum",
            "the sum of the target's ranks equals the baseline: "
            "an all-reduce over tp is missing after this point",
            3e-7,
        ),
    )
    rows = [gate, experts, *(differing(n, f"model.layers.{n}:output", 1.9) for n in range(3, 16))]
    return result(
        rows,
        Divergence(experts, 1, (gate,)),
        advice=("twinrun show runs/tp2 model.layers.0.mlp.experts:output",),
    )


def agreement() -> Result:
    rows = [close(1, "model.embed_tokens:output", 0.0), close(2, "lm_head:output", 4.8e-7)]
    return result(rows)


def broken() -> Result:
    """Replicas that differ inside the target."""
    found = Invariant(
        "replicas", "target", 0, "model.norm.weight:parameter", (0, 1),
        "ranks hold different values of what is replicated over tp", 0.25,
    )  # fmt: skip
    silent = Invariant("silent", "target", 0, "lm_head:output", (1,), "rank 1 never recorded it")
    return result([close(1, "model.embed_tokens:output")], invariants=(found, silent))


def unsure() -> Result:
    rows = [close(1, "a:output"), undecided(2, "b:output"), undecided(3, "c:output")]
    return result(
        rows, undecided_from=rows[1], advice=("twinrun compare runs/tp1 runs/tp2 --noise DIR",)
    )


def partnerless() -> Result:
    rows = [close(1, "a:output"), unmatched(2, "model.layer.0:output", "model.layers.0:output")]
    return result(rows, problems=("target: the run was killed; 3 records are lost",))


def nothing() -> Result:
    return result([unmatched(1, "a:output", ""), unmatched(2, "b:output", "")])


def other_reasons() -> Result:
    """Shape, dtype and non-finite mismatches, and an integer tensor."""
    shape = replace(
        differing(1, "a:output"), reason="shape", measures=None, floor=None, ratio=None,
        target=Operand("a:output", (2, 8, 64), "float32", "", "whole", (0,)),
    )  # fmt: skip
    nan = differing(2, "b:output", float("nan"))
    assert nan.measures is not None
    nan = replace(nan, reason="nonfinite", measures=replace(nan.measures, nan=(0, 12)))
    exact = replace(
        differing(3, "ids:output"), floor=Floor(0, 0, 1, "exact", "integers"), occurrence=1
    )
    gone = replace(
        shape, position=4, name="d:output", verdict="unreadable", reason="segment is cut"
    )
    return result([shape, nan, exact, gone], Divergence(shape, 0, ()))


EVERY = {
    "divergence": divergence,
    "agreement": agreement,
    "broken": broken,
    "unsure": unsure,
    "partnerless": partnerless,
    "nothing": nothing,
    "other_reasons": other_reasons,
}
