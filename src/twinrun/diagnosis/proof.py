"""Whether the target's output comes right once the suspects' values are the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twinrun.comparison.result import Result
from twinrun.diagnosis.finding import Healing, Proof
from twinrun.diagnosis.tree import Tree
from twinrun.diagnosis.weighing import Weighed, Weighing

# What is left of a difference must be this much smaller to count as partly healed.
_PARTLY = 0.9
_ORDER = {"differs": 3, "unreadable": 2, "unmatched": 2, "undecided": 1}


def final_outputs(weighing: Weighing, tree: Tree) -> list[Weighed]:
    """What the outermost modules gave back, in every step."""
    return [one for root in tree.roots() for one in weighing.outputs(root)]


def proof_of(points: Sequence[str], before: Weighing, after: Weighing, tree: Tree) -> Proof:
    """The final outputs of a pass with grafts beside those without, each against the baseline's."""
    was = {one.pair.lead.key: one for one in final_outputs(before, tree)}
    now = final_outputs(after, tree)
    if not now:
        return Proof("not run", tuple(points), text="the outermost module gave back no tensor")
    worst = max(now, key=lambda one: (_ORDER.get(one.measured, 0), _distance(one) or 0.0))
    first = was.get(worst.pair.lead.key)
    left, start = _distance(worst), _distance(first)
    state = _state(worst, start, left)
    name = worst.name if not worst.record.step else f"{worst.name} (step {worst.record.step})"
    return Proof(state, tuple(points), name, start, left, worst.ratio, _text(state, start, left))


def tipped_modules(result: Result) -> list[str]:
    """The modules whose choices rounding tipped, where nothing differs but what follows from those.

    What only one of the two recorded says nothing: a pass leaves parameters out.
    """
    if any(row.verdict == "differs" for row in result.rows):
        return []
    tied = [
        row.name.rpartition(":") for row in result.rows if row.reason == "tie" and row.is_choice
    ]
    return list(dict.fromkeys(path for path, _, port in tied if port.startswith("output")))


def with_choices(
    proof: Proof, tipped: Sequence[str], after: Weighing, before: Weighing, tree: Tree
) -> Proof:
    """A partial proof after a further pass, in which the tipped choices were the baseline's as well."""
    again = proof_of((*proof.points, *(f"{path}:output" for path in tipped)), before, after, tree)
    if again.state == "healed":
        text = f"held with it: the choice of {', '.join(tipped)}, which rounding tipped"
        return replace(again, text=text)
    return replace(proof, text=f"{proof.text}, behind a choice that rounding tipped")


def _state(worst: Weighed, start: float | None, left: float | None) -> Healing:
    if worst.measured in ("equal", "close"):
        return "healed"
    if start and left is not None and left < _PARTLY * start:
        return "partly"
    return "not healed"


def _text(state: Healing, start: float | None, left: float | None) -> str:
    if start is None or left is None or state != "partly":
        return ""
    return f"relative L2 {left:.2g} is left of {start:.2g}"


def _distance(weighed: Weighed | None) -> float | None:
    if weighed is None or weighed.measures is None:
        return None
    return weighed.measures.relative_l2
