"""Why a pair of operators parts: what stands between it and what still agreed, on either side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from twinrun.diagnosis.operator_file import Step
from twinrun.diagnosis.sequence_alignment import SIZES, Pairs, align
from twinrun.diagnosis.sequence_words import number, origin_words, phrase, plain_name

# They move or allocate memory, or move it between ranks.
_SILENT = frozenset(
    {"clone", "copy_", "empty", "empty_like", "new_empty", "new_zeros", "zeros", "zeros_like",
     "_unsafe_view", "lift_fresh", "contiguous", "all_reduce", "all_reduce_", "wait_tensor",
     "all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all_single", "allreduce_",
     "_allgather_base_", "broadcast_", "broadcast", "empty_strided", "_reshape_copy"}
)  # fmt: skip
_TIMES = frozenset({"mul", "mul_", "div", "div_"})
_ARITHMETIC = frozenset({"mul", "mul_", "div", "div_", "add", "add_", "sub", "sub_", "_to_copy"})
_MOST_REPLACED = 2


class Agreement(Protocol):
    """What is known of pairs; `sequence_values.Values` is one."""

    def agrees(self, at: int) -> bool: ...
    def pair_of(self, side: int, step: int) -> int | None: ...


Kind = Literal["argument", "order", "missing", "extra", "value"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """``index`` counts in the baseline's sequence where ``in_baseline``, else in the target's."""

    kind: Kind
    index: int
    text: str
    in_baseline: bool = False


def computes(step: Step) -> bool:
    """Whether an operator makes new values, rather than moving or showing old ones."""
    return not step.is_view and step.name not in _SILENT


def explain_replaced(one: Sequence[Step], two: Sequence[Step]) -> Explanation | None:
    """Where each side executes one operator, and not the same."""
    mine, theirs = ([at for at, s in enumerate(steps) if computes(s)] for steps in (one, two))
    if len(mine) != 1 or len(theirs) != 1 or one[mine[0]].name == two[theirs[0]].name:
        return None
    text = f"{phrase(two[theirs[0]])} where the baseline has {phrase(one[mine[0]])}"
    return Explanation("argument", theirs[0], text)


def explain_end(one: Sequence[Step], two: Sequence[Step], pairs: Pairs) -> Explanation | None:
    """What one side computes after everything that both do."""
    paired = ({a for a, _ in pairs}, {b for _, b in pairs})
    after = [max(one_side, default=-1) + 1 for one_side in paired]
    for side, steps in enumerate((one, two)):
        others = (two, one)[side]
        tail = [at for at in range(after[side], len(steps)) if computes(steps[at])]
        if not tail and len(steps) > after[side] and len(others) == after[1 - side]:
            return _rearranged(steps, after[side], side == 0)
        if not tail or len(tail) > _MOST_REPLACED:
            continue
        other = _elsewhere(steps[tail[0]], others, paired[1 - side])
        if other is None:
            return _alone(steps, tail, side == 0)
        a, b = (other, tail[0]) if side else (tail[0], other)
        return _order(one, two, a, b, pairs)
    return None


def _rearranged(steps: Sequence[Step], start: int, in_baseline: bool) -> Explanation | None:
    """One side only goes on to move elements of what both computed."""
    if all(steps[at].is_view for at in range(start, len(steps))):
        return None  # only looked at otherwise; the values lie where they lay
    names = ", ".join(dict.fromkeys(plain_name(step.name) for step in steps[start:]))
    who, other = ("baseline", "target") if in_baseline else ("target", "baseline")
    kind: Kind = "missing" if in_baseline else "extra"
    text = f"the {who} rearranges what it computed ({names}), the {other} does not"
    return Explanation(kind, start, text, in_baseline)


def explain(
    one: Sequence[Step],
    two: Sequence[Step],
    pairs: Pairs,
    at: int,
    known: Agreement,
    conversions: bool = False,
) -> Explanation | None:
    """What makes pair ``at`` part. None where the two ways to it are too unlike to say.

    ``conversions``: only where a conversion between types is what it is about.
    """
    a, b = pairs[at]
    mine = _back(one, a, 0, known)
    theirs = _back(two, b, 1, known)
    here, there = [one[n] for n in mine], [two[n] for n in theirs]
    local = align(here, there)
    told = [
        (theirs[y], text, mine[x])
        for x, y in local
        if (text := _other_arguments(here[x], there[y])) is not None
    ]
    left = [n for n in _without(mine, (x for x, _ in local)) if computes(one[n])]
    right = [n for n in _without(theirs, (y for _, y in local)) if computes(two[n])]
    if conversions:
        left, right = (
            [n for n in ns if s[n].name == "_to_copy"] for ns, s in ((left, one), (right, two))
        )
        told = [row for row in told if "dtype" in row[1] or "conversion" in row[1]]
    if left or right:
        return _structure(one, two, left, right, pairs)
    if told:
        index, text, before = told[0]
        return Explanation("argument", index, _in_words(one, two, before, index, text))
    if conversions:
        return None
    other = _other_origins(one, two, a, b)
    if other:
        return Explanation("argument", b, other)
    return Explanation(
        "value", b, f"{phrase(two[b])} gives other values from the same inputs and arguments"
    )


def _back(steps: Sequence[Step], start: int, side: int, known: Agreement) -> list[int]:
    """The step and what leads to it from results that still agreed, in order."""
    found, waiting = {start}, [start]
    while waiting:
        for one in steps[waiting.pop()].inputs:
            origin = one.origin[3:].partition(".")[0] if one.origin.startswith("op:") else ""
            if not origin.isdecimal() or int(origin) >= len(steps):
                continue
            before = int(origin)
            pair = known.pair_of(side, before)
            if before in found or (pair is not None and known.agrees(pair)):
                continue
            found.add(before)
            waiting.append(before)
    return sorted(found)


def _without(numbers: list[int], taken: Iterator[int]) -> list[int]:
    gone = set(taken)
    return [n for at, n in enumerate(numbers) if at not in gone]


def _structure(
    one: Sequence[Step], two: Sequence[Step], left: list[int], right: list[int], pairs: Pairs
) -> Explanation | None:
    """What only one side has on its way: somewhere else in the other (order), or nowhere."""
    for n in right:
        if (other := _elsewhere(two[n], one, {a for a, _ in pairs})) is not None:
            return _order(one, two, other, n, pairs)
    for n in left:
        if (other := _elsewhere(one[n], two, {b for _, b in pairs})) is not None:
            return _order(one, two, n, other, pairs)
    if len(left) > _MOST_REPLACED or len(right) > _MOST_REPLACED:
        return None
    if left and right:
        text = f"{phrase(two[right[0]])} where the baseline has {phrase(one[left[0]])}"
        return Explanation("argument", right[0], text)
    return _alone(one, left, True) if left else _alone(two, right, False)


def _alone(steps: Sequence[Step], alone: list[int], in_baseline: bool) -> Explanation:
    """One operator that the other side lacks, or several that lead to the last of them."""
    at = alone[-1]
    after = _next(steps, at)
    before = f" before {plain_name(after.name)}" if after is not None else ""
    told = " and ".join(phrase(steps[one]) for one in alone)
    if in_baseline:
        text = f"{told} {'are' if len(alone) > 1 else 'is'} missing{before}"
        return Explanation("missing", at, text, in_baseline=True)
    return Explanation("extra", at, f"the target has a further {told}{before}")


def _elsewhere(step: Step, steps: Sequence[Step], paired: set[int]) -> int | None:
    """The same operator on the other side, without a partner there."""
    for at, other in enumerate(steps):
        alike = other.name == step.name and _other_arguments(step, other) is None
        if alike and at not in paired and phrase(other) == phrase(step):
            return at
    return None


def _order(one: Sequence[Step], two: Sequence[Step], a: int, b: int, pairs: Pairs) -> Explanation:
    """An operator that stands at ``a`` in the baseline and at ``b`` in the target."""
    for x, y in pairs:
        if not computes(one[x]) or (x < a) == (y < b):
            continue
        word, other = ("after", "before") if y < b else ("before", "after")
        text = f"{phrase(two[b])} comes {word} {phrase(two[y])}; the baseline has it {other}"
        return Explanation("order", b, text)
    return Explanation("order", b, f"{phrase(two[b])} stands elsewhere than in the baseline")


def _other_arguments(a: Step, b: Step) -> str | None:
    """The first scalar argument that is not the same, in words; sizes may differ."""
    for name in dict.fromkeys([*a.arguments, *b.arguments]):
        mine, theirs = a.arguments.get(name), b.arguments.get(name)
        if mine == theirs or name in SIZES or (_is_size(mine, a) and _is_size(theirs, b)):
            continue
        return f"{name}={_word(theirs)} where the baseline has {_word(mine)}"
    for mine, theirs in zip(a.inputs, b.inputs, strict=False):
        if None not in (mine.value, theirs.value) and mine.value != theirs.value:
            return f"{theirs.argument}={number(theirs.value)} where the baseline has {number(mine.value)}"
    if len(a.outputs) == len(b.outputs) == 1 and a.outputs[0].dtype != b.outputs[0].dtype:
        return f"dtype {b.outputs[0].dtype} where the baseline has {a.outputs[0].dtype}"
    return None


def _is_size(value: Any, step: Step) -> bool:
    sizes = {size for one in (*step.inputs, *step.outputs) for size in one.shape}
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(type(one) is int and one in sizes for one in values)


def _word(value: Any) -> str:
    return "its default" if value is None else number(value)


def _other_origins(one: Sequence[Step], two: Sequence[Step], a: int, b: int) -> str:
    """An input that comes from another place outside the sequence."""
    for mine, theirs in zip(one[a].inputs, two[b].inputs, strict=False):
        words = origin_words(mine), origin_words(theirs)
        if words[0] != words[1]:
            told = [word or "an operator's result" for word in words]
            return f"{plain_name(two[b].name)} takes {told[1]} where the baseline takes {told[0]}"
    return ""


def _in_words(one: Sequence[Step], two: Sequence[Step], a: int, b: int, text: str) -> str:
    """A factor is told by what it multiplies; anything else by the operator's own name."""
    step = two[b]
    mine, theirs = one[a].arguments.get("other"), step.arguments.get("other")
    if step.name in _TIMES and isinstance(mine, (int, float)) and isinstance(theirs, (int, float)):
        word = "multiplied" if step.name.startswith("mul") else "divided"
        verb = "multiplies" if word == "multiplied" else "divides"
        after = _next(two, b, beyond=_ARITHMETIC)
        name = plain_name(after.name) if after is not None else plain_name(step.name)
        return (
            f"{name}: its input is {word} by {number(theirs)} where the baseline {verb} by "
            f"{number(mine)}"
        )
    return f"{phrase(step) if 'dtype' in text else plain_name(step.name)}: {text}"


def _next(steps: Sequence[Step], at: int, beyond: frozenset[str] = frozenset()) -> Step | None:
    """The next operator that computes with this one's result, past views and those ``beyond``."""
    reached = {at}
    for later in range(at + 1, len(steps)):
        step = steps[later]
        made = {one.origin[3:].partition(".")[0] for one in step.inputs if one.origin[:3] == "op:"}
        if made.isdisjoint(str(one) for one in reached):
            continue
        if computes(step) and step.name not in beyond:
            return step
        reached.add(later)
    return None
