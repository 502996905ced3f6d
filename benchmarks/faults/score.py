"""What a tool's answer is worth. Pure.

`grade` puts an answer beside what was planted:

    leaf         named first, as exactly as the fault can be named
    parent       the module around it is named first
    late         something else is named first: what the fault did downstream, a module far around it,
                 or something sound before it
    missed       nothing is named
    false alarm  only sound things are named, or anything where nothing was planted
    clean        nothing was planted and nothing is named
    failed       the tool gave no answer; `unable` where it says itself that it cannot
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.faults.faults import Expected

Mark = Literal["leaf", "parent", "late", "missed", "false alarm", "clean", "failed", "unable"]
MARKS: tuple[Mark, ...] = (
    "leaf", "parent", "clean", "late", "missed", "false alarm", "failed", "unable",
)  # fmt: skip
"""From best to worst: a row with several faults has the worst of their marks."""


@dataclass(frozen=True)
class Named:
    """One thing that a tool points at: a module's or parameter's path, and what it says of it."""

    path: str
    parameter: bool = False
    operator: str = ""
    hint: str = ""
    rounding: bool = False
    """The tool says that the same is computed here and only rounded elsewhere: that is no blame."""


@dataclass(frozen=True)
class Answer:
    """All that a tool said: what it names, in its own order, and how its proof came out.

    ``verdict`` is ``blamed``, ``clean``, ``undecided``, ``failed`` or ``unable``; ``proof`` is
    ``healed``, ``partly``, ``not healed`` or empty.
    """

    named: tuple[Named, ...]
    verdict: str
    proof: str = ""
    text: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Grade:
    """The worth of one answer. ``hint`` and ``operator`` are ``right``, ``wrong``, ``none`` or empty."""

    mark: Mark
    hint: str = ""
    operator: str = ""
    proof: str = ""
    extra: int = 0
    """Things named beside what was planted."""


def grade(answer: Answer, expected: Sequence[Expected]) -> Grade:
    """Grade an answer against all that was planted, nothing included."""
    if answer.verdict in ("failed", "unable"):
        return Grade("failed" if answer.verdict == "failed" else "unable")
    if not expected:
        accused = [named for named in answer.named if not named.rounding]
        return Grade("false alarm" if accused else "clean", extra=len(accused))
    marks = [_mark(answer.named, one, [e for e in expected if e != one]) for one in expected]
    found = [(one, _found(answer.named, one)) for one in expected]
    hints = [_hint(named, one) for one, named in found if named and one.hints]
    operators = [_operator(named, one) for one, named in found if named and one.operators]
    sound = [n for n in answer.named if not any(_touches(n, one) for one in expected)]
    return Grade(
        max(marks, key=MARKS.index), _worst(hints), _worst(operators), answer.proof, len(sound)
    )


def _mark(named: Sequence[Named], one: Expected, others: Sequence[Expected]) -> Mark:
    """One fault's mark; what names another planted fault exactly is no mistake about this one."""
    left = [
        n
        for n in named
        if _exactness(n, one) == "leaf" or not any(_exactness(n, o) == "leaf" for o in others)
    ]
    if not left:
        return "missed"
    exact = _exactness(left[0], one)
    if exact:
        return exact
    if any(_touches(n, one) for n in left) or downstream(left[0].path, one):
        return "late"
    return "false alarm"


def _exactness(named: Named, one: Expected) -> Literal["leaf", "parent"] | None:
    """How exactly a name meets a fault. A weight is not its module, nor a module its weight."""
    leaves = one.leaf.split("|")
    if named.path in leaves and named.parameter == one.parameter:
        return "leaf"
    owner = named.path.rpartition(".")[0] if named.parameter else named.path
    if named.path in (*leaves, one.parent) or owner in leaves:
        return "parent"
    return None


def _touches(named: Named, one: Expected) -> bool:
    """Whether a name is the fault's own, or of a module around it, which differs for its sake."""
    return bool(_exactness(named, one)) or one.leaf.startswith(f"{named.path}.")


def _found(named: Sequence[Named], one: Expected) -> Named | None:
    for wanted in ("leaf", "parent"):
        for each in named:
            if _exactness(each, one) == wanted:
                return each
    return None


def _hint(named: Named, one: Expected) -> str:
    if not named.hint:
        return "none"
    return "right" if named.hint in one.hints else "wrong"


def _operator(named: Named, one: Expected) -> str:
    if not named.operator:
        return "none"
    return "right" if any(each in named.operator for each in one.operators) else "wrong"


def _worst(words: Sequence[str]) -> str:
    return max(words, key=["right", "none", "wrong"].index) if words else ""


WITHIN = (
    "input_layernorm", "self_attn", "q_proj", "q_norm", "k_proj", "k_norm", "v_proj", "o_proj",
    "post_attention_layernorm", "mlp", "gate", "experts", "gate_proj", "act_fn", "up_proj",
    "down_proj",
)  # fmt: skip
"""The order in which the parts of a decoder layer are entered."""


def place(path: str) -> tuple[int, ...]:
    """Where a module stands in the order of execution; a module stands before its parts."""
    parts = path.split(".")
    if parts[0] == "lm_head":
        return (3,)
    held = re.match(r"model\.layers\.(\d+)(?:\.|$)(.*)", path)
    if held:
        inside = [WITHIN.index(part) for part in held[2].split(".") if part in WITHIN]
        return (1, int(held[1]), *inside)
    return {"model.norm": (2,), "model": (), "": ()}.get(path, (0,))


def downstream(path: str, one: Expected) -> bool:
    """Whether ``path`` is computed after the fault: later in the forward, earlier in the backward."""
    here, fault = place(path), place(one.leaf.split("|")[0])
    return here < fault if one.backward else here > fault
