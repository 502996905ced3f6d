"""The suite as a list of cases: one pair of runs each. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchmarks.faults.faults import BY_NAME, FAMILIES, FAULTS, PAIRS, REWRITES, Expected


@dataclass(frozen=True)
class Case:
    """A right run on one process against a target with ``fault`` or ``rewrite`` on ``tp`` ranks."""

    family: str
    tp: int
    mode: str = "forward"
    dtype: str = "float32"
    bias: bool = False
    fault: str = ""
    rewrite: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        """What the row is called: the fault, the rewrite or the seed."""
        return self.fault or self.rewrite or f"no fault, seed {self.seed}"

    @property
    def key(self) -> str:
        """A name for files; no two cases share it."""
        parts = [self.fault or self.rewrite or "none", self.family, f"tp{self.tp}", self.mode]
        parts += [self.dtype, "bias" if self.bias else "plain", f"seed{self.seed}"]
        return "-".join(parts).replace("+", "_and_").replace("@", "_in_")

    @property
    def model(self) -> str:
        """The name of the model's directory."""
        return f"{self.family}-{'bias' if self.bias else 'plain'}-{self.seed}"

    @property
    def expected(self) -> tuple[Expected, ...]:
        """What should be named, in execution order; nothing where nothing is wrong."""
        found: list[Expected] = []
        for part in filter(None, self.fault.split("+")):
            name, _, layer = part.partition("@")
            found += BY_NAME[name].expectations(int(layer) if layer else None)
        return tuple(found)

    @property
    def options(self) -> list[str]:
        """What both runs of the case are given."""
        return ["--mode", self.mode, "--dtype", self.dtype, "--seed", str(self.seed)]

    @property
    def planted(self) -> list[str]:
        """What the target is given besides."""
        fault = ["--fault", self.fault] if self.fault else []
        return fault + (["--rewrite", self.rewrite] if self.rewrite else [])


def faulty() -> Iterable[Case]:
    """Every fault and pair of faults, on each family and size."""
    for one in FAULTS:
        for family in one.families:
            for tp in one.tp:
                for dtype in one.dtypes:
                    text = f"{one.name}@{one.layer}"
                    yield Case(family, tp, one.mode, dtype, one.bias, text)
    for two in PAIRS:
        for family in two.families:
            for tp in two.tp:
                for dtype in two.dtypes:
                    yield Case(family, tp, two.mode, dtype, two.bias, two.text)


KINDS = [(f, tp, d) for f in FAMILIES for tp in (1, 2, 4) for d in ("float32", "bfloat16")]


def right(seeds: int, *, spread: bool = False) -> Iterable[Case]:
    """Every rewrite, and models without a fault on one, two and four ranks, ``seeds`` of each.

    ``spread``: each seed is one kind only, in turn.
    """
    for one in REWRITES:
        for family in one.families:
            for tp in one.tp:
                for dtype in one.dtypes:
                    yield Case(family, tp, "forward", dtype, rewrite=one.name)
    for seed in range(seeds):
        for family, tp, dtype in [KINDS[seed % len(KINDS)]] if spread else KINDS:
            yield Case(family, tp, "forward", dtype, seed=seed)


def select(
    cases: Iterable[Case],
    *,
    names: str = "*",
    families: Iterable[str] = FAMILIES,
    tp: Iterable[int] = (1, 2, 4),
    dtypes: Iterable[str] = ("float32", "bfloat16"),
) -> list[Case]:
    """The cases whose fault or rewrite (``none`` for neither) matches the glob, and so on."""
    globs = names.split(",")
    return [
        case
        for case in cases
        if any(fnmatchcase(case.fault or case.rewrite or "none", glob) for glob in globs)
        and case.family in set(families)
        and case.tp in set(tp)
        and case.dtype in set(dtypes)
    ]
