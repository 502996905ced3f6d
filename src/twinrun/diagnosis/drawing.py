"""Random numbers inside a shadow: drawn in the program's own type, so that they are the same numbers."""

from __future__ import annotations

from typing import Any

import torch

from twinrun.diagnosis.operator_facts import OperatorFacts, mapped
from twinrun.diagnosis.precision import Precision
from twinrun.diagnosis.refusal import Refusal

_PLAIN = frozenset(
    {"bernoulli", "bernoulli_", "uniform_", "normal_", "normal", "exponential_", "cauchy_",
     "log_normal_", "geometric_", "random_", "rand", "rand_like", "randn", "randn_like", "randint",
     "randint_like", "randperm", "multinomial", "poisson", "binomial"}
)  # fmt: skip
_DROPOUT = frozenset({"native_dropout", "_fused_dropout"})
_CHANCES = ("dropout_p", "dropout", "p")


def draws_nothing(facts: OperatorFacts, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this call of an operator that may draw has dropout at zero."""
    if facts.name in _PLAIN:
        return False
    bound = dict(facts.bound(args, kwargs))
    chances = [bound[name] for name in _CHANCES if name in bound]
    if bound.get("train") is False or bound.get("is_training") is False:
        return True
    return not any(chances)


def draw(
    func: Any,
    facts: OperatorFacts,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    precision: Precision,
) -> Any:
    """The result in the shadow's type; Refusal where drawing cannot be told from computing."""
    if facts.name in _DROPOUT:
        return _dropout(func, args, precision, facts)

    def down(value: Any) -> Any:
        return precision.down(value) if isinstance(value, torch.Tensor) else value

    def up(value: Any) -> Any:
        return precision.up(value) if isinstance(value, torch.Tensor) else value

    if facts.name not in _PLAIN:
        raise Refusal(f"{facts.name} draws random numbers inside its own kernel")
    if facts.writes:
        filled, *rest = args
        low = precision.low if filled.dtype is precision.high else filled.dtype
        fresh = torch.empty_like(filled, dtype=low)
        func(fresh, *(mapped(one, down) for one in rest), **kwargs)
        return filled.copy_(fresh)
    out = func(
        *(mapped(one, down) for one in args),
        **{name: mapped(one, down) for name, one in kwargs.items()},
    )
    return mapped(out, up)


def _dropout(
    func: Any, args: tuple[Any, ...], precision: Precision, facts: OperatorFacts
) -> tuple[torch.Tensor, torch.Tensor]:
    values, chance = precision.up(args[0]), args[1]
    ones = torch.ones_like(values, dtype=precision.low)
    _, mask = func(ones, *args[1:])
    kept = chance if facts.name == "_fused_dropout" else 1.0 - chance
    return values * mask * (1.0 / kept if kept else 0.0), mask
