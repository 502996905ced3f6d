"""Which module computes something else when it is given the same inputs, and the proof of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from twinrun.comparison.compare import compare
from twinrun.comparison.result import Result, Row
from twinrun.comparison.view import View
from twinrun.diagnosis.accounts import Account, Accounts, part_of, rows_by_module
from twinrun.diagnosis.advice import advice, outcome_of
from twinrun.diagnosis.backward import (
    Backward,
    forward_agrees,
    gradients_agree,
    outputs_of,
    proven,
    sent_back,
)
from twinrun.diagnosis.backward import proof_of as backward_proof
from twinrun.diagnosis.finding import Finding, Outcome, Proof, Suspect
from twinrun.diagnosis.frontier import frontier, inside
from twinrun.diagnosis.grafts import boundaries, either, points, write_layouts
from twinrun.diagnosis.inspection import Inspection, spread_modules, suspect_of
from twinrun.diagnosis.options import Wishes
from twinrun.diagnosis.parameters import held_suspects
from twinrun.diagnosis.passes import Grafts, Passes
from twinrun.diagnosis.proof import proof_of
from twinrun.diagnosis.roots import unequal_inputs
from twinrun.diagnosis.segments import segments
from twinrun.diagnosis.tree import tree_of
from twinrun.diagnosis.weighing import Weighing
from twinrun.errors import CaptureError
from twinrun.recorder.options import Options
from twinrun.recorder.reader import open_capture

_EVERY = Options(taps="modules")


def blame(passes: Passes, wishes: Wishes | None = None) -> Finding:
    """Run the programs of ``passes`` until the fault is named and proven, or nothing is left to ask.

    TwinrunError where a program fails, CaptureError where the baseline's capture lacks what it takes.
    """
    with ExitStack() as opened:
        return _Blame(passes, wishes or Wishes(), opened).finding()


class _Blame:
    def __init__(self, passes: Passes, wishes: Wishes, opened: ExitStack) -> None:
        self._passes = passes
        self._wishes = wishes
        self._opened = opened
        self._accounts = Accounts()
        self._suspects: list[Suspect] = []
        self._proof = Proof("not run")
        self._held: list[str] = []  # parameters and buffers that every later pass grafts
        self._entered: set[str] = set()

    # --- the course of it ------------------------------------------------------------------

    def finding(self) -> Finding:
        """See both runs as they go, then isolate, look inside, prove, and look again at what is left."""
        self._observe()
        if not self._result.pairs:
            return self._end("nothing")
        unequal = unequal_inputs(self._result, self._tree)
        if unequal:
            return self._end("inputs differ", unequal)
        self._heal_parameters()
        if self._wishes.gradients and forward_agrees(self._result):
            self._backward()
            return self._end()
        if self._done():
            return self._end()
        self._isolate()
        for _ in range(self._wishes.rounds):
            self._enter()
            if not self._inspect() or self._done():
                break
        self._accounts.clear_entered()
        return self._end()

    def _observe(self) -> None:
        """Both runs as they go."""
        wanted = self._wishes.gradients
        options = replace(_EVERY, parameters=True, gradients=wanted, own_gradients=wanted)
        if self._passes.capture is None:
            self._passes.capture = self._passes.plain("baseline", "as it is", options)
        self._baseline = self._open(self._passes.capture)
        if not any(one.role == "input" and one.has_payload for one in self._baseline.records):
            raise CaptureError(
                f"{self._baseline.path} holds no module's inputs, so no module can be given them",
                expected="a capture with the values of inputs and outputs",
                do="record it again: twinrun run --out DIR --taps modules --parameters -- CMD",
            )
        target = self._open(self._passes.plain("target", "as it is", options))
        self._result = self._compared(target)
        self._tree = tree_of(self._baseline)
        self._as_run = self._weighing(self._baseline, target)
        self._layouts = write_layouts(self._result, self._passes.work / "layouts.json")

    def _compared(self, target: View) -> Result:
        told = self._wishes.settings
        return compare(
            self._baseline,
            target,
            noise=self._wishes.noise or None,
            floor=dict(told.floors),
            k=dict(told.k) or None,
            allow=told.allow,
        )

    def _heal_parameters(self) -> None:
        """A wrong weight is a fault of its own; with it put right, modules answer for their code."""
        self._suspects = held_suspects(self._result, self._tree)
        self._held = [one.name for one in self._suspects]
        if not self._held:
            return
        told = self._held[0] if len(self._held) == 1 else f"{len(self._held)} parameters or buffers"
        one, two = self._grafted(f"with the baseline's {told}", "", _EVERY)
        self._prove_by(self._weighing(one, two), self._held)

    def _isolate(self) -> None:
        """Every block is given the baseline's inputs, all in one pass: none lies inside another."""
        self._front = frontier(self._tree)
        reset = {one.path for one in self._front}
        self._reset(f"{len(reset)} modules, each given the baseline's inputs", reset)
        self._entered = {one.path for one in self._front if one.leaf}

    def _enter(self) -> None:
        """Reset every boundary inside the blocks that are suspect."""
        hunting = self._hunting()
        blocks = self._accounts.to_enter(self._front, self._entered, hunting=hunting)
        if not blocks:
            return
        told = blocks[0].path if len(blocks) == 1 else f"{len(blocks)} blocks"
        self._reset(f"every module inside {told}, each given the baseline's inputs", inside(blocks))
        self._entered |= {one.path for one in blocks}

    def _inspect(self) -> bool:
        """Suspects one precision up and operator by operator, then the proof; whether any is new."""
        below = self._wishes.shadows == "all"
        doubts = self._accounts.doubts(hunting=self._hunting(), below=below)
        sure = all(one.state == "differs" for one in doubts)
        if not doubts or (not sure and self._wishes.shadows == "off"):
            return False
        inspection = self._inspected(doubts, shadows=not sure or _any_low(doubts))
        found = [one for one in doubts if one.state in ("differs", "rounds elsewhere")]
        for account in found:
            account.suspected = True
            operator = (
                inspection.operator(account) if inspection and self._wishes.operators else None
            )
            self._suspects.append(suspect_of(account, operator))
        if found:
            self._prove()
        return bool(found)

    def _backward(self) -> None:
        """The forward pass agrees: every module is given the baseline's gradient of its outputs."""
        if gradients_agree(self._result):
            return
        options = replace(_EVERY, gradients=True, own_gradients=True)
        told = f"{len(self._tree)} modules, each given the baseline's gradient of its output"
        pair = self._grafted(told, outputs_of(self._tree), options)
        found = Backward(self._weighing(*pair), self._tree).suspects()
        names = sent_back(found, self._result)
        after = self._result
        if names:
            told = names[0] if len(names) == 1 else f"{len(names)} gradients"
            _, run = self._grafted(f"proof, with the baseline's {told}", points(names), options)
            after = self._compared(run)
        self._proof = backward_proof(after, found, names)
        self._suspects += proven(found, self._proof)

    # --- passes ----------------------------------------------------------------------------

    def _inspected(self, doubts: Sequence[Account], *, shadows: bool) -> Inspection | None:
        """Run both sides with instruments on the doubtful modules, given the baseline's inputs."""
        shadows = shadows and self._wishes.shadows != "off"
        # A capture has no operators: there is nothing to hold the target's against.
        operators = self._wishes.operators and self._passes.baseline is not None
        if not shadows and not operators:
            return None
        paths = sorted({one.segment.module.path for one in doubts})
        listed = ",".join(_as_glob(path) for path in paths)
        options = Options(
            taps=",".join(f"{_as_glob(path)}:*" for path in paths),
            shadow=listed if shadows else "",
            operators=listed if operators else "",
        )
        many = paths[0] if len(paths) == 1 else f"{len(paths)} modules"
        told = f"{many} one precision up" if shadows else f"the operators of {many}"
        mine = None
        if self._passes.baseline is not None:
            mine = self._open(self._passes.plain("baseline", told, options))
        _, target = self._grafted(told, boundaries(paths, "input"), options)
        found = Inspection(self._baseline, mine, target, spread_modules(self._result))
        if shadows:
            found.settle(doubts)
        return found

    def _prove(self) -> None:
        """One pass with every suspect's values grafted: does the output come right?"""
        modules, names = [], list(self._held)
        for one in self._suspects:
            if one.fault in ("parameter", "buffer"):
                continue
            module = self._tree.get(one.module)
            if module is not None and (module.parent is None or module.repeats > 1):
                names += self._handed_down(one.module)
            else:
                modules.append(one.module)
        chosen = either(
            boundaries(modules, "output"), points(n for n in names if n not in self._held)
        )
        told = [f"{path}:output" for path in modules] + names
        many = told[0] if len(told) == 1 else f"{len(told)} points"
        pair = self._grafted(f"proof, with the baseline's {many}", chosen, _EVERY)
        self._prove_by(self._weighing(*pair), told)

    def _handed_down(self, path: str) -> list[str]:
        """What the own code of a module that holds the whole model gives its children, where that differs."""
        account = self._accounts.get(path, "own code")
        if account is None:
            return []
        return list(
            dict.fromkeys(
                one.name
                for one in account.segment.made
                if one.record.role == "input" and one.measured in ("differs", "undecided")
            )
        )

    def _prove_by(self, after: Weighing, told: Sequence[str]) -> None:
        self._proof = proof_of(told, self._as_run, after, self._tree)
        self._suspects = [replace(one, proof=self._proof) for one in self._suspects]

    def _reset(self, purpose: str, reset: Iterable[str]) -> None:
        """A pass in which every boundary of these modules starts from the baseline's values."""
        paths = set(reset)
        listed = ",".join(_as_glob(path) for path in sorted(paths))
        options = replace(_EVERY, natives=listed)
        pair = self._grafted(purpose, boundaries(sorted(paths), "input", "output"), options)
        weighing = self._weighing(*pair)
        for segment in segments(weighing, self._tree, paths):
            self._accounts.add(segment, weighing)

    def _grafted(self, purpose: str, b2t: str, options: Options) -> tuple[View, View]:
        grafts = Grafts(either(b2t, points(self._held)), self._layouts)
        one, two = self._passes.grafted(purpose, grafts, options)
        baseline = self._baseline if one == self._passes.capture else self._open(one)
        return baseline, self._open(two)

    def _weighing(self, one: View, two: View) -> Weighing:
        return Weighing(one, two, self._wishes.settings)

    def _open(self, path: Path) -> View:
        capture = open_capture(path)
        self._opened.callback(capture.close)
        return capture

    # --- what is known ---------------------------------------------------------------------

    def _done(self) -> bool:
        """Whether nothing is left to explain."""
        if self._suspects:
            return self._proof.state == "healed"
        return self._result.verdict == "agree" and self._wishes.shadows != "all"

    def _hunting(self) -> bool:
        """Whether the runs part for a reason that is not known yet."""
        return not self._suspects or self._proof.state in ("partly", "not healed")

    def _end(self, outcome: Outcome | None = None, unequal: tuple[Row, ...] = ()) -> Finding:
        rows = rows_by_module(self._result)
        positions = {path: held[-1].position for (path, _), held in rows.items()}
        parts = self._accounts.parts(self._result, positions)
        suspects = tuple(sorted(map(self._with_part, self._suspects), key=self._place))
        ended = outcome or outcome_of(self._result, suspects, parts)
        return Finding(
            outcome=ended,
            comparison=self._result,
            suspects=suspects,
            parts=parts,
            proof=self._proof,
            passes=tuple(self._passes.done),
            roots=unequal,
            notes=self._notes(),
            advice=advice(self._passes, self._result, suspects),
        )

    def _with_part(self, suspect: Suspect) -> Suspect:
        account = self._accounts.get(suspect.module, "own code") or self._accounts.get(
            suspect.module, "whole"
        )
        if suspect.part is not None or account is None or not account.suspected:
            return suspect
        rows = rows_by_module(self._result)
        return replace(suspect, part=part_of(account, rows, {}))

    def _place(self, suspect: Suspect) -> tuple[int, int]:
        held = suspect.fault in ("parameter", "buffer")
        module = self._tree.get(suspect.module)
        return (0 if held else 1, module.order if module is not None else 0)

    def _notes(self) -> tuple[str, ...]:
        told = []
        if self._wishes.gradients and not forward_agrees(self._result):
            told = ["the forward pass differs: gradients are looked at once it agrees"]
        unknown = [one for one in self._accounts if one.state == "unknown"]
        told += [f"{one.segment.module.path} was not isolated: {one.why}" for one in unknown[:8]]
        told += [
            f"the operators of {one.segment.module.path} name nothing: {one.inside}"
            for one in self._accounts
            if one.inside
        ]
        if len(unknown) > 8:
            told.append(f"{len(unknown) - 8} more modules were not isolated")
        return tuple(told)


def _any_low(accounts: Sequence[Account]) -> bool:
    return any(
        one.segment.worst is not None and one.segment.worst.record.dtype in ("bfloat16", "float16")
        for one in accounts
    )


def _as_glob(path: str) -> str:
    return path.replace("[", "[[]")
