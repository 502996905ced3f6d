"""Stated layouts: other orders of dims, and samples that only one run has."""

from __future__ import annotations

import torch
from memory_run import MemoryRun

from twinrun import compare
from twinrun.comparison.result import Result

A = torch.randn(6, 4, 8, generator=torch.Generator().manual_seed(0))


def one_point(baseline: dict[str, object], target: dict[str, object]) -> Result:
    """One dump on each side: tensor and dims."""
    runs = []
    for given in (baseline, target):
        run = MemoryRun()
        run.add("x", given["tensor"], dims=given["dims"], dims_source="annotation")
        runs.append(run)
    return compare(*runs)


def test_other_order_of_dims() -> None:
    """`s b h` and `b s h` are held side by side by their names."""
    result = one_point(
        {"tensor": A, "dims": "s b h"},
        {"tensor": A.transpose(0, 1).contiguous(), "dims": "b s h"},
    )
    assert result.rows[0].verdict == "equal"


def test_other_order_with_a_wrong_element() -> None:
    """Names align the dims and hide no difference."""
    wrong = A.transpose(0, 1).contiguous()
    wrong[1, 2, 3] += 1
    result = one_point({"tensor": A, "dims": "s b h"}, {"tensor": wrong, "dims": "b s h"})
    row = result.rows[0]
    assert (
        row.verdict == "differs" and row.measures is not None and row.measures.max_abs is not None
    )
    assert row.measures.max_abs.index == (2, 1, 3)


def test_samples_that_only_one_run_has() -> None:
    """Two data ranks against one: the second sample met nothing, so the point does not agree."""
    baseline, target = MemoryRun(), MemoryRun()
    baseline.add("x", A, dims="s b h", dims_source="annotation", mesh={"dp": (0, 1)})
    for rank in range(2):
        tensor = A if rank == 0 else A + 1
        mesh = {"dp": (rank, 2)}
        target.add("x", tensor, rank=rank, dims="s b h", dims_source="annotation", mesh=mesh)
    result = compare(baseline, target)
    assert result.rows[0].verdict == "undecided" and result.rows[0].reason == "layout"
    assert result.exit_code == 3 and result.target.mesh == "dp=2"
