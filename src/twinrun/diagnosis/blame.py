"""Which module computes something else when it is given the same inputs, and the proof of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from twinrun.comparison.result import Row
from twinrun.comparison.view import View
from twinrun.diagnosis.accounts import Account, Accounts, part_of, rows_by_module
from twinrun.diagnosis.advice import advice, outcome_of
from twinrun.diagnosis.backward import (
    Backward,
    forward_agrees,
    gradients_agree,
    outputs_of,
    proven,
    same_tensors,
    sent_back,
)
from twinrun.diagnosis.backward import proof_of as backward_proof
from twinrun.diagnosis.finding import Finding, Outcome, Proof, Suspect
from twinrun.diagnosis.frontier import frontier, inside
from twinrun.diagnosis.grafts import boundaries, either, points
from twinrun.diagnosis.inspection import Inspection, spread_modules, suspect_of
from twinrun.diagnosis.laboratory import EVERY, Laboratory, boundaries_of, globs, many
from twinrun.diagnosis.options import Wishes
from twinrun.diagnosis.parameters import held_suspects
from twinrun.diagnosis.passes import Passes
from twinrun.diagnosis.proof import proof_of, tipped_modules, with_choices
from twinrun.diagnosis.roots import unequal_inputs
from twinrun.diagnosis.segments import segments

_NOTED = 8
"""Modules of a kind that are named in the notes."""


def blame(passes: Passes, wishes: Wishes | None = None) -> Finding:
    """Run the programs of ``passes`` until the fault is named and proven, or nothing is left to ask.

    TwinrunError where a program fails, CaptureError where the baseline's capture lacks what it takes.
    """
    with ExitStack() as opened:
        return _Blame(Laboratory(passes, wishes or Wishes(), opened)).finding()


class _Blame:
    def __init__(self, lab: Laboratory) -> None:
        self._lab = lab
        self._wishes = lab.wishes
        self._result = lab.result
        self._tree = lab.tree
        self._front = frontier(lab.tree)
        self._accounts = Accounts()
        self._suspects: list[Suspect] = []
        self._proof = Proof("not run")
        self._entered: set[str] = set()

    # --- the course of it ------------------------------------------------------------------

    def finding(self) -> Finding:
        """See both runs as they go, then isolate, look inside, prove, and look again at what is left."""
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
            entered = self._enter()
            inspected = self._inspect()
            if self._done() or not (entered or inspected):
                break
        self._accounts.clear_entered()
        return self._end()

    def _heal_parameters(self) -> None:
        """A wrong weight is a fault of its own; with it put right, modules answer for their code."""
        self._suspects = held_suspects(self._result, self._tree)
        lab = self._lab
        lab.held = [one.name for one in self._suspects]
        if lab.held:
            told = many(lab.held, "parameters or buffers")
            pair = lab.grafted(f"with the baseline's {told}", "", EVERY)
            self._prove_by(pair, lab.held, "")

    def _isolate(self) -> None:
        """Every block is given the baseline's inputs, all in one pass: none lies inside another."""
        reset = {one.path for one in self._front}
        self._reset(f"{len(reset)} modules, each given the baseline's inputs", reset)
        self._entered = {one.path for one in self._front if one.leaf}

    def _enter(self) -> bool:
        """Reset every boundary inside the blocks that are suspect; whether there were any."""
        hunting = self._hunting()
        blocks = self._accounts.to_enter(self._front, self._entered, hunting=hunting)
        if not blocks:
            return False
        told = many([one.path for one in blocks], "blocks")
        self._reset(f"every module inside {told}, each given the baseline's inputs", inside(blocks))
        self._entered |= {one.path for one in blocks}
        return True

    def _inspect(self) -> bool:
        """Suspects one precision up and operator by operator, then the proof; whether any is new."""
        below = self._wishes.shadows == "all"
        doubts = self._accounts.doubts(hunting=self._hunting(), below=below)
        sure = all(one.state == "differs" for one in doubts)
        if not doubts or (not sure and self._wishes.shadows == "off"):
            return False
        shadows = self._wishes.shadows != "off" and (not sure or _any_low(doubts))
        found = self._decided(doubts) if shadows else doubts
        for account in found:
            account.suspected = True
            self._suspects.append(suspect_of(account))
        if found:
            self._prove(found)
        return bool(found)

    def _decided(self, doubts: Sequence[Account]) -> list[Account]:
        """Both sides one precision up, given the baseline's inputs: what is a fault, what rounding."""
        paths = [one.segment.module.path for one in doubts]
        told = f"{many(paths, 'modules')} one precision up"
        options = replace(boundaries_of(paths), shadow=globs(paths))
        mine = self._lab.again(told, options)
        _, target = self._lab.grafted(told, boundaries(paths, "input"), options)
        found = Inspection(self._lab.baseline, mine, target, spread_modules(self._result))
        found.settle(doubts)
        return [one for one in doubts if one.state in ("differs", "rounds elsewhere")]

    def _backward(self) -> None:
        """The forward pass agrees: every module is given the baseline's gradient of its outputs."""
        if gradients_agree(self._result):
            return
        options = self._lab.backward
        told = f"{len(self._tree)} modules, each given the baseline's gradient of its output"
        pair = self._lab.grafted(told, outputs_of(self._tree), options)
        found = Backward(self._lab.weighing(*pair), self._tree).suspects()
        names = sent_back(found, self._result)
        after = self._result
        if names:
            told = names[0] if len(names) == 1 else f"{len(names)} gradients"
            _, run = self._lab.grafted(f"proof, with the baseline's {told}", points(names), options)
            after = self._lab.compared(run)
        before = same_tensors(self._lab.baseline, names)
        self._proof = backward_proof(after, found, names, before)
        self._suspects += proven(found, self._proof)

    def _reset(self, purpose: str, paths: set[str]) -> None:
        """Judge every stretch of code between two boundaries that a pass resets."""
        weighing = self._lab.reset(purpose, paths)
        for segment in segments(weighing, self._tree, paths):
            self._accounts.add(segment, weighing)

    # --- the proof -------------------------------------------------------------------------

    def _prove(self, fresh: Sequence[Account]) -> None:
        """One pass with every suspect's values grafted: does the output come right?

        The operators of the fresh suspects are recorded on the way, given the baseline's inputs.
        """
        modules, names = self._to_graft()
        told = [f"{path}:output" for path in modules] + self._lab.held + names
        # Another place of rounding is told by its shadow: no operator would say more.
        asked = [one for one in fresh if one.state != "rounds elsewhere"]
        paths = sorted({one.segment.module.path for one in asked})
        options, given, mine = EVERY, "", None
        # A capture has no operators: there is nothing to hold the target's against.
        if paths and self._wishes.operators and self._lab.has_baseline:
            listed = globs(paths)
            mine = self._lab.again(
                f"the operators of {many(paths, 'modules')}",
                replace(boundaries_of(paths), operators=listed),
            )
            options, given = replace(EVERY, operators=listed), boundaries(paths, "input")
        healing = either(boundaries(modules, "output"), points(names))
        chosen = either(healing, given)
        if not healing and not self._lab.held:
            self._proof = Proof(
                "not run", text="nothing comes after the outermost module's own code"
            )
            if not chosen:
                return
        purpose = f"proof, with the baseline's {many(told, 'points')}"
        one, two = self._lab.grafted(purpose, chosen, options)
        if mine is not None:
            spread = spread_modules(self._result)
            inspection = Inspection(self._lab.baseline, mine, two, spread)
            self._suspects = [inspection.named(one, asked) for one in self._suspects]
        if healing or self._lab.held:
            self._prove_by((one, two), told, healing)

    def _to_graft(self) -> tuple[list[str], list[str]]:
        """The modules whose outputs, and the points that, put every suspect right."""
        modules, names = [], []
        for one in self._suspects:
            if one.fault in ("parameter", "buffer"):
                continue
            module = self._tree.get(one.module)
            if module is not None and (module.parent is None or module.repeats > 1):
                names += self._handed_down(one.module)
            else:
                modules.append(one.module)
        return modules, names

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

    def _prove_by(self, healed: tuple[View, View], told: Sequence[str], healing: str) -> None:
        lab = self._lab
        self._proof = proof_of(told, lab.as_run, lab.weighing(*healed), self._tree)
        tipped = tipped_modules(lab.compared(healed[1])) if self._proof.state == "partly" else []
        if tipped:
            chosen = either(healing, boundaries(tipped, "output"))
            purpose = f"proof, with {many(tipped, 'choices')} that rounding tipped held too"
            after = lab.weighing(*lab.grafted(purpose, chosen, EVERY))
            self._proof = with_choices(self._proof, tipped, after, lab.as_run, self._tree)
        self._suspects = [replace(one, proof=self._proof) for one in self._suspects]

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
        parts = self._accounts.parts(rows)
        named = [self._with_part(one, rows) for one in self._suspects]
        suspects = tuple(sorted(named, key=self._place))
        ended = outcome or outcome_of(self._result, suspects, parts)
        return Finding(
            outcome=ended,
            comparison=self._result,
            suspects=suspects,
            parts=parts,
            proof=self._proof,
            passes=tuple(self._lab.passes.done),
            roots=unequal,
            notes=self._notes(),
            advice=advice(self._lab.passes, self._result, suspects),
        )

    def _with_part(
        self, suspect: Suspect, rows: Mapping[tuple[str, str], Sequence[Row]]
    ) -> Suspect:
        account = self._accounts.get(suspect.module, "own code") or self._accounts.get(
            suspect.module, "whole"
        )
        if suspect.part is not None or account is None or not account.suspected:
            return suspect
        return replace(suspect, part=part_of(account, rows))

    def _place(self, suspect: Suspect) -> tuple[int, int]:
        held = suspect.fault in ("parameter", "buffer")
        module = self._tree.get(suspect.module)
        return (0 if held else 1, module.order if module is not None else 0)

    def _notes(self) -> tuple[str, ...]:
        told = []
        if self._wishes.gradients and not forward_agrees(self._result):
            told = ["the forward pass differs: gradients are looked at once it agrees"]
        told += [
            f"{path} is called {two} times where the baseline calls it {one}: part of the module around it"
            for path, (one, two) in list(self._lab.otherwise.items())[:_NOTED]
            if self._tree.get(path) is None
        ]
        unknown = [one for one in self._accounts if one.state == "unknown"]
        told += [
            f"{one.segment.module.path} was not isolated: {one.why}" for one in unknown[:_NOTED]
        ]
        told += [
            f"the operators of {one.segment.module.path} name nothing: {one.inside}"
            for one in self._accounts
            if one.inside
        ]
        if len(unknown) > _NOTED:
            told.append(f"{len(unknown) - _NOTED} more modules were not isolated")
        return tuple(told)


def _any_low(accounts: Sequence[Account]) -> bool:
    return any(
        one.segment.worst is not None and one.segment.worst.record.dtype in ("bfloat16", "float16")
        for one in accounts
    )
