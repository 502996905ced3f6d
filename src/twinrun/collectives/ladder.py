"""What a group would use at each of many sizes, told in as few rows as it takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from twinrun.collectives.facts import GroupFacts, Plan, Request
from twinrun.collectives.plan import plan

SIZES = tuple(1 << power for power in range(10, 27))
"""1 KiB to 64 MiB, in powers of two."""


@dataclass(frozen=True, slots=True)
class Rung:
    """Sizes from ``least`` to ``most`` bytes that get the same backend, algorithm and order."""

    least: int
    most: int
    plan: Plan


def ladder(facts: GroupFacts, request: Request, sizes: Sequence[int] = SIZES) -> tuple[Rung, ...]:
    """The rungs of ``sizes``; neighbours that differ in launch shape or reason alone are one."""
    rungs: list[Rung] = []
    for nbytes in sizes:
        chosen = plan(facts, replace(request, nbytes=nbytes))
        if rungs and _same(rungs[-1].plan, chosen):
            rungs[-1] = replace(rungs[-1], most=nbytes)
        else:
            rungs.append(Rung(nbytes, nbytes, chosen))
    return tuple(rungs)


def _same(one: Plan, other: Plan) -> bool:
    return (one.backend, one.algorithm, one.order) == (other.backend, other.algorithm, other.order)
