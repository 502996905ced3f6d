"""Choices that rounding tipped: undecided instead of different, and never more than that."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from memory_run import MemoryRun

from twinrun import compare
from twinrun.comparison.choices import is_choice
from twinrun.comparison.result import Result, Row
from twinrun.report.comparison import comparison_page
from twinrun.report.terminal import console, show

ROWS, EXPERTS, WIDTH, TIED = 32, 8, 64, 5
Change = Callable[[dict[str, torch.Tensor]], None]


def seeded(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def block(tipped: bool, change: Change | None = None) -> MemoryRun:
    """A router, its experts and what comes after; row `TIED` has two scores one rounding apart."""
    logits = seeded(ROWS, EXPERTS, seed=1)
    logits[TIED] = torch.tensor([9.0, 3.0, 3.0, 1.0, 0.0, 0.5, -1.0, -2.0])
    logits[TIED, 2 if tipped else 1] += 2.0**-22
    indices = logits.topk(2).indices
    experts = seeded(EXPERTS, WIDTH, seed=2)
    tensors = {
        "mlp:input.x": seeded(2, ROWS // 2, WIDTH, seed=3),
        "mlp.gate:input.x": seeded(ROWS, WIDTH, seed=3),
        "mlp.gate:output.0": logits,
        "mlp.gate:output.1": indices,
        "mlp:output": experts[indices].sum(1).view(2, ROWS // 2, WIDTH),
        "later:output": torch.empty(0),
        "aside:output": seeded(ROWS, WIDTH, seed=5),
    }
    tensors["later:output"] = tensors["mlp:input.x"] + tensors["mlp:output"]
    if change is not None:
        change(tensors)
    calls: dict[str, dict[str, object]] = {
        "mlp:input.x": {"begun": 0, "order": 1},
        "mlp.gate:input.x": {"begun": 2, "order": 3, "parents": (0,)},
        "mlp.gate:output.0": {"begun": 2, "order": 4, "parents": (1,)},
        "mlp.gate:output.1": {"begun": 2, "order": 5, "parents": (1,)},
        "mlp:output": {"begun": 0, "order": 6, "parents": (0, 2, 3)},
        "later:output": {"begun": 7, "order": 8, "parents": (4,)},
        "aside:output": {"begun": 9, "order": 10, "parents": (0,)},
    }
    run = MemoryRun()
    for name, tensor in tensors.items():
        run.add(name, tensor, **calls[name])
    return run


def told(change: Change | None = None, tipped: bool = True) -> tuple[Result, dict[str, Row]]:
    """The baseline against a target whose row tipped and whose tensors were changed."""
    result = compare(block(False), block(tipped, change))
    return result, {row.name: row for row in result.rows}


def test_a_tie_is_undecided() -> None:
    """A choice between scores within rounding, its result and what follows: undecided, exit code 3."""
    result, rows = told()
    said = {name: (row.verdict, row.reason) for name, row in rows.items()}
    assert said["mlp.gate:output.0"] == ("close", "")
    assert said["mlp.gate:output.1"] == ("undecided", "tie")
    assert said["mlp:output"] == ("undecided", "tie")
    assert said["later:output"] == ("undecided", "after a tie")
    assert result.first is None and result.exit_code == 3
    assert rows["mlp.gate:output.1"].notes[0].startswith("1 of 32 rows chose otherwise")
    assert rows["mlp:output"].measured == "differs"


def test_the_page_tells_of_ties() -> None:
    """One sentence names the first choice and the way on."""
    out = io.StringIO()
    show(comparison_page(told()[0]), console(out, 400))
    line = next(line for line in out.getvalue().splitlines() if line.startswith("ties"))
    assert "mlp.gate:output.1 the runs chose otherwise" in line and "--noise" in line


def test_indices_that_are_not_the_top_differ() -> None:
    """A router that does not take the largest of its own scores is at fault."""

    def second_best(tensors: dict[str, torch.Tensor]) -> None:
        tensors["mlp.gate:output.1"] = tensors["mlp.gate:output.0"].topk(3).indices[:, 1:]

    result, rows = told(second_best)
    assert rows["mlp.gate:output.1"].verdict == rows["mlp:output"].verdict == "differs"
    assert result.first is not None and result.first.row.name == "mlp.gate:output.1"


def test_scores_that_differ_explain_nothing() -> None:
    """Where the scores differ, so does what was chosen by them."""

    def wrong(tensors: dict[str, torch.Tensor]) -> None:
        tensors["mlp.gate:output.0"] = logits = seeded(ROWS, EXPERTS, seed=9)
        tensors["mlp.gate:output.1"] = logits.topk(2).indices

    _, rows = told(wrong)
    assert rows["mlp.gate:output.1"].verdict == rows["mlp:output"].verdict == "differs"


def test_a_wrong_row_beside_the_tipped_ones_differs() -> None:
    """The rows that chose alike must agree by themselves; and nothing later is excused by the tie."""

    def wrong(tensors: dict[str, torch.Tensor]) -> None:
        tensors["mlp:output"][1, 3] *= 1.01

    result, rows = told(wrong)
    assert rows["mlp.gate:output.1"].verdict == "undecided"
    assert rows["mlp:output"].verdict == "differs"
    assert result.first is not None and result.first.row.name == "mlp:output"


def test_rows_in_another_order_excuse_no_result() -> None:
    """The same experts named in another order are a tie, but give the same sum."""

    def swapped(tensors: dict[str, torch.Tensor]) -> None:
        tensors["mlp.gate:output.1"] = tensors["mlp.gate:output.1"].flip(-1)
        tensors["mlp:output"][0, 1] *= 1.01

    _, rows = told(swapped, tipped=False)
    assert rows["mlp.gate:output.1"].verdict == "undecided"
    assert rows["mlp:output"].verdict == "differs"


def test_a_larger_fault_after_a_tie_differs() -> None:
    """What lies further apart than twice what the tie moved differs."""
    tie = told()[1]["mlp:output"].measures
    assert tie is not None

    def at(distance: float) -> str:
        def wrong(tensors: dict[str, torch.Tensor]) -> None:
            tensors["later:output"] = tensors["later:output"] * (1 + distance)

        return told(wrong)[1]["later:output"].verdict

    assert at(4 * tie.relative_l2) == "differs"
    assert at(0.2 * tie.relative_l2) == "undecided"


def test_a_fault_larger_than_what_the_tie_moved_there_differs() -> None:
    """A point that is computed from a stream which the tie hardly moved is held to that."""
    runs = []
    for factor in (1.0, 1.1):
        run = block(factor > 1)
        stream = 50 * seeded(ROWS, WIDTH, seed=6) + run.tensor(run.records[4]).view(ROWS, WIDTH)
        run.add("stream:output", stream, begun=20, order=21, parents=(4,))
        run.add("last:output", stream * factor, begun=22, order=23, parents=(7,))
        runs.append(run)
    rows = {row.name: row for row in compare(*runs).rows}
    assert (rows["stream:output"].verdict, rows["stream:output"].reason) == (
        "undecided", "after a tie",
    )  # fmt: skip
    assert rows["last:output"].verdict == "differs"


def test_faults_that_grow_step_by_step_differ() -> None:
    """However small each step, nothing further apart than twice what the tie itself moved is excused."""
    tie = told()[1]["mlp:output"].measures
    assert tie is not None
    runs = []
    for target in (False, True):
        run = block(target)
        value = run.tensor(run.records[4])
        for at, times in enumerate((1.5, 2.8)):
            moved = value * (1 + target * times * tie.relative_l2)
            run.add(
                f"chain.{at}:output",
                moved,
                begun=20 + at,
                order=20 + at,
                parents=(4 if not at else 7,),
            )
        runs.append(run)
    rows = {row.name: row.verdict for row in compare(*runs).rows}
    assert (rows["chain.0:output"], rows["chain.1:output"]) == ("undecided", "differs")


def test_what_no_tie_reached_differs() -> None:
    """A point that was not computed from the choice is judged as if there were none."""
    floor = told()[1]["aside:output"].floor
    assert floor is not None

    def wrong(tensors: dict[str, torch.Tensor]) -> None:
        tensors["mlp:input.x"] = tensors["mlp:input.x"] * (1 + 3 * floor.l2)
        tensors["aside:output"] *= 1 + 5 * floor.l2

    _, rows = told(wrong)
    assert rows["mlp.gate:output.1"].verdict == "undecided"
    assert rows["mlp:input.x"].verdict == "undecided"
    assert rows["aside:output"].verdict == "differs"


@pytest.mark.parametrize("name", ["mlp:input.x", "mlp.gate:input.x"])
def test_points_before_the_tie_are_untouched(name: str) -> None:
    """A difference before the choice stays one."""

    def wrong(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name] * 1.01

    assert told(wrong)[1][name].verdict == "differs"


def with_experts(tipped: bool, change: Change | None = None) -> MemoryRun:
    """The same block with its experts module recorded, too."""
    whole = block(tipped)
    held = {record.name: whole.tensor(record) for record in whole.records}
    tensors = {
        "mlp:input.x": held["mlp:input.x"],
        "mlp.gate:output.0": held["mlp.gate:output.0"],
        "mlp.gate:output.1": held["mlp.gate:output.1"],
        "mlp.experts:input.index": held["mlp.gate:output.1"],
        "mlp.experts.act:output": held["mlp:output"].view(ROWS, WIDTH)[
            held["mlp.gate:output.1"][:, 0].argsort(stable=True)
        ],
        "mlp.experts:output": held["mlp:output"].view(ROWS, WIDTH).clone(),
        "mlp:output": held["mlp:output"],
    }
    if change is not None:
        change(tensors)
    calls: tuple[dict[str, object], ...] = (
        {"begun": 0, "order": 1},
        {"begun": 2, "order": 3, "parents": (0,)},
        {"begun": 2, "order": 4, "parents": (0,)},
        {"begun": 5, "order": 6, "sources": (2,)},
        {"begun": 7, "order": 8, "parents": (3,)},
        {"begun": 5, "order": 9, "parents": (3, 4)},
        {"begun": 0, "order": 10, "parents": (0, 1, 2, 5)},
    )
    run = MemoryRun()
    for (name, tensor), call in zip(tensors.items(), calls, strict=True):
        run.add(name, tensor, **call)
    return run


@pytest.mark.parametrize("wrong", ["", "mlp.experts:output", "mlp:output"])
def test_experts_are_followed_by_what_they_were_called_with(wrong: str) -> None:
    """A module that is given the indices is judged without the tipped rows, and so is what is around it."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        if wrong:
            tensors[wrong].view(ROWS, WIDTH)[20] *= 1.01

    rows = compare(with_experts(False), with_experts(True, change)).rows
    said = {row.name: (row.verdict, row.reason) for row in rows}
    assert said["mlp.experts:input.index"] == ("undecided", "tie")
    inside = ("differs", "") if wrong == "mlp.experts:output" else ("undecided", "tie")
    assert said["mlp.experts.act:output"] == inside
    for name in ("mlp.experts:output", "mlp:output"):
        assert said[name] == (("differs", "") if name == wrong else ("undecided", "tie"))


def test_sharded_rows_are_put_together() -> None:
    """Scores and indices that lie on several ranks are judged as one tensor."""
    runs = []
    for tipped in (False, True):
        whole, run = block(tipped), MemoryRun()
        for rank in range(2 if tipped else 1):
            for record in whole.records:
                value = whole.tensor(record)
                parts = {"dims": "t[tp] e", "mesh": {"tp": (rank, 2)}}
                split = tipped and "gate:output" in record.name
                run.add(
                    record.name, value.chunk(2)[rank] if split else value, rank=rank,
                    begun=record.begun, order=record.order, parents=record.parents,
                    **(parts if split else {"mesh": {"tp": (rank, 2)}} if tipped else {}),
                )  # fmt: skip
        runs.append(run)
    verdicts = {row.name: (row.verdict, row.reason) for row in compare(*runs).rows}
    assert verdicts["mlp.gate:output.1"] == verdicts["mlp:output"] == ("undecided", "tie")


@pytest.mark.parametrize(
    ("indices", "right"),
    [
        ([[0, 1]], True), ([[1, 0]], True), ([[0, 2]], True), ([[1, 2]], False), ([[0, 0]], False),
        ([[0, 4]], False), ([[0, -1]], False), ([[0, 1, 2, 3]], False),
    ],
)  # fmt: skip
def test_choices(indices: list[list[int]], right: bool) -> None:
    """The k largest in any order, exact equals included; never all of them, nor what is outside."""
    assert is_choice(torch.tensor(indices), torch.tensor([[3.0, 1.0, 1.0, 0.0]])) is right


def test_nan_scores_choose_nothing() -> None:
    """A NaN among the scores leaves nothing to rest a choice on."""
    assert not is_choice(torch.tensor([[0]]), torch.tensor([[1.0, float("nan")]]))
