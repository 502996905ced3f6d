"""What is shown of a capture: the folded list, one tensor, its values and statistics."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
import torch
from captures import process, record, run_info
from golden import assert_golden

from twinrun.recorder.filter import parse_filter
from twinrun.report.capture import capture_page
from twinrun.report.jsonlines import capture_lines, tensor_lines
from twinrun.report.listing import chosen, folded
from twinrun.report.statistics import statistics
from twinrun.report.tensor import Seen, tensor_page
from twinrun.report.terminal import console, show
from twinrun.report.values import value_rows

PROCESSES = (
    process(0),
    process(1, ended=False, problems=("the process was killed",), notes=("2 data loader workers",)),
)
RECORDS = [
    record(rank=rank, process=rank, step=step, dims=dims, name=name, nbytes=8192, shape=(2, 16, 64))
    for step in (0, 1, 3)
    for rank in (0, 1)
    for name, dims in (
        ("model.embed_tokens:output", None),
        ("model.layers.0.mlp:output", "b s h[tp]"),
    )
]


def told(page: Any) -> str:
    out = io.StringIO()
    show(page, console(out, 80))
    return out.getvalue()


def test_golden_listing() -> None:
    """A capture is shown as its golden file: the run, warnings, processes, folded points."""
    run = run_info(complete=False, exit_code=9, problems=("rank 1 was killed",))
    assert_golden("capture.txt", told(capture_page("runs/tp2", run, PROCESSES, folded(RECORDS), 0)))


def test_golden_tensor() -> None:
    """One tensor is shown as its golden file: facts, layout and statistics a rank, values."""
    held = [
        record(rank=rank, shape=(2, 3), dims="b h[tp]", dims_source="annotation", mesh={"tp": (rank, 2)},
               tags={"phase": "decode", "layer": 0})
        for rank in (0, 1)
    ]  # fmt: skip
    tensor = torch.tensor([[1.0, -2.5, 3.25], [0.0, float("nan"), float("inf")]])
    seen = [Seen(one, statistics(tensor)) for one in held]
    assert_golden("tensor.txt", told(tensor_page(seen, value_rows(tensor), [1, 2, 5])))
    assert_golden("tensor.jsonl", "".join(f"{line}\n" for line in tensor_lines(seen)))


def test_listing_says_what_was_left_out() -> None:
    """--top never cuts in silence."""
    text = told(capture_page("runs/tp2", run_info(), PROCESSES, folded(RECORDS), 1))
    assert "and 1 more point (--top 0 shows all)" in text


def test_an_empty_choice_is_said() -> None:
    """A filter that takes nothing gives a statement, not an empty table."""
    assert "NO RECORDS" in told(capture_page("runs/tp2", run_info(), PROCESSES, [], 0))


def test_records_fold_by_name_type_and_shape() -> None:
    """Steps and ranks of one name fold into one entry; another shape is another entry."""
    entries = folded([*RECORDS, record("model.embed_tokens:output", shape=(1, 1), rank=7)])
    assert [(e.name, e.steps, e.ranks, e.records) for e in entries] == [
        ("model.embed_tokens:output", {0, 1, 3}, {0, 1}, 6),
        ("model.layers.0.mlp:output", {0, 1, 3}, {0, 1}, 6),
        ("model.embed_tokens:output", {0}, {7}, 1),
    ]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 12), ({"step": 1}, 4), ({"rank": 0, "step": 3}, 2), ({"name": "absent".__eq__}, 0),
        ({"wanted": parse_filter("name ~ '*mlp*' and rank == 1")}, 3), ({"wanted": parse_filter("step >= 1")}, 8),
    ],
)  # fmt: skip
def test_every_filter_narrows(options: dict[str, Any], count: int) -> None:
    """Step, rank, name and filter expression each take a part of the records."""
    assert len(list(chosen(RECORDS, **options))) == count


def test_json_of_a_listing_is_one_line_a_record() -> None:
    """capture, process and record lines, in that order, each strict JSON."""
    parsed = [json.loads(text) for text in capture_lines("runs/a", run_info(), PROCESSES, RECORDS)]
    assert [one["type"] for one in parsed] == ["capture", "process", "process"] + ["record"] * 12
    assert parsed[-1]["shape"] == [2, 16, 64]


def test_a_small_tensor_is_shown_whole() -> None:
    """Up to 64 elements every value is shown."""
    rows = list(value_rows(torch.arange(24).reshape(2, 3, 4)))
    assert len(rows) == 6
    assert rows[-1][0] == "[1, 2, :]"
    assert rows[-1][1].split() == ["20", "21", "22", "23"]


def test_a_large_tensor_is_shown_by_its_edges() -> None:
    """Of a large tensor the first and last elements are shown, with marks for what lies between."""
    held = value_rows(torch.arange(10_000).reshape(100, 100))
    rows = {label: "  ".join(values.split()) for label, values in held}
    assert rows["[0, :]"] == "0  1  2  ...  97  98  99"
    assert rows["[99, :]"] == "9900  9901  9902  ...  9997  9998  9999"
    assert rows["[...]"] == "..."
    assert len(rows) == 7


@pytest.mark.parametrize(
    ("tensor", "rows"),
    [
        (torch.tensor(2.5), [("[]", "2.5")]),
        (torch.zeros(0, 3), []),
        (torch.tensor([True, False]), [("[:]", "True  False")]),
        (torch.tensor([1 + 2j]), [("[:]", "(1+2j)")]),
        (torch.tensor([1.5], dtype=torch.bfloat16), [("[:]", "1.5")]),
        (torch.tensor([1.5]).to(torch.float8_e4m3fn), [("[:]", "1.5")]),
        (torch.tensor([float("nan"), float("-inf")]), [("[:]", "NaN  -Inf")]),
    ],
)
def test_every_type_has_values(tensor: torch.Tensor, rows: list[tuple[str, str]]) -> None:
    """Scalars, empty tensors, bools, complex and narrow floats are shown."""
    assert [(label, "  ".join(values.split())) for label, values in value_rows(tensor)] == rows


def test_statistics_do_not_depend_on_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of many slices has the statistics of the whole."""
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr("twinrun.report.statistics._SLICE", 7)
    got = statistics(values)
    assert math.isclose(float(got["mean"]), float(values.mean()), rel_tol=1e-12)
    assert math.isclose(float(got["l2"]), float(values.norm()), rel_tol=1e-12)
    assert got["count"] == 1000
