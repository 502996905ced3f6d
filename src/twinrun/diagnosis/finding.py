"""What blame found: frozen dataclasses of numbers and strings, no tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twinrun.comparison.result import Hint, Result, Row

State = Literal["clean", "undecided", "rounds elsewhere", "differs", "unknown"]
"""What one module does when it is given the baseline's inputs.

``clean``: what it adds is no more than rounding. ``rounds elsewhere``: one precision up both runs
compute the same, as stored they do not: the same function, rounded in other places. ``unknown``: it
was not isolated.
"""

Fault = Literal["module", "own code", "parameter", "buffer", "gradient", "rounding"]
"""``own code``: the module's children are all clean, it is what the module does with them.
``gradient``: the forward pass agrees, this gradient does not. ``rounding``: see State."""

Healing = Literal["healed", "partly", "not healed", "not run"]
Outcome = Literal["clean", "blamed", "undecided", "inputs differ", "nothing"]


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of a program, named before it starts. ``seconds`` is wall time."""

    number: int
    side: Literal["baseline", "target", "both"]
    purpose: str
    command: str
    capture: str
    seconds: float
    exit_code: int


@dataclass(frozen=True, slots=True)
class Shadow:
    """Baseline and target beside the same module run one precision up on the same inputs.

    All four are relative L2: ``baseline`` and ``target`` each to its own shadow (its own rounding),
    ``apart`` between the two shadows, ``allowed`` what rounding explains of that. None: not run.
    ``precision`` is the shadow's dtype.
    """

    precision: str
    baseline: float | None
    target: float | None
    apart: float | None
    allowed: float | None

    @property
    def own(self) -> float:
        """The larger of both sides' own rounding; 0 where neither is known."""
        return max(self.baseline or 0.0, self.target or 0.0)

    @property
    def times(self) -> float | None:
        """How far the two shadows are apart in units of what rounding explains; None without both."""
        return self.apart / self.allowed if self.apart is not None and self.allowed else None


@dataclass(frozen=True, slots=True)
class Part:
    """One module's account, at the output and step where it adds most.

    ``isolated`` compares its output when it is given the baseline's inputs; ``accumulated`` as the run
    went; ``inherited`` is the worst of its inputs as the run went. ``times`` is the isolated distance
    in units of the rounding that is allowed (``isolated.floor``, or the shadow's where that decided).
    ``how`` says how it was isolated: ``grafted`` (its inputs were put in), ``given`` (they agreed bit
    for bit as the run went) or empty.
    """

    position: int
    module: str
    module_class: str
    state: State
    leaf: bool
    how: Literal["grafted", "given", ""]
    isolated: Row | None = None
    accumulated: Row | None = None
    inherited: Row | None = None
    shadow: Shadow | None = None
    times: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator inside a module where the two runs part. ``text`` is a sentence without a stop."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of the output when the suspects' values were grafted from the baseline.

    ``points`` are what was grafted, ``output`` the final output that was looked at, ``before`` and
    ``after`` its relative L2, ``ratio`` what is left in units of what rounding allows there.
    """

    state: Healing
    points: tuple[str, ...] = ()
    output: str = ""
    before: float | None = None
    after: float | None = None
    ratio: float | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Suspect:
    """One fault: where it is, what kind it is, what shows it, and what healing it did.

    ``module`` is the module's path (the root's is empty), ``name`` the point or parameter that shows it.
    """

    module: str
    module_class: str
    name: str
    fault: Fault
    part: Part | None = None
    row: Row | None = None
    operator: Operator | None = None
    hint: Hint | None = None
    proof: Proof = Proof("not run")
    why: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `blame` returns. ``comparison`` holds the two runs as they went, side by side.

    ``parts`` are all modules that were looked at, in execution order; ``suspects`` the faults in the
    order in which they take effect. ``proof`` is that of all suspects together.
    """

    outcome: Outcome
    comparison: Result
    suspects: tuple[Suspect, ...] = ()
    parts: tuple[Part, ...] = ()
    proof: Proof = Proof("not run")
    passes: tuple[Pass, ...] = ()
    roots: tuple[Row, ...] = ()
    """inputs of the outermost module that differ between the runs: nothing is blamed then"""
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 clean, 1 a fault (or unequal inputs), 2 nothing could be done, 3 undecided."""
        if self.outcome == "blamed":
            only_rounding = all(one.fault == "rounding" for one in self.suspects)
            return 3 if only_rounding else 1
        return {"clean": 0, "undecided": 3, "inputs differ": 1, "nothing": 2}[self.outcome]
