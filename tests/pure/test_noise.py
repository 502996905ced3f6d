"""The four sources of the noise floor, and what each of them may bound."""

from __future__ import annotations

from pathlib import Path

import torch
from observing import Stack, observing

from twinrun.comparison.compare import compare
from twinrun.diagnosis import instruments
from twinrun.numerics.floor import NOISE_MARGIN, Allowance
from twinrun.numerics.noise import BOUNDS, Noise, estimated, floor_for, observed

FIRST = estimated(Allowance(1e-3, 1e-2), "float32")
SHADOW = observed("shadow", [(1e-6, 1e-5), (3e-6, 2e-5)])
RUN = observed("run", [(2e-6, 4e-5)])
PERTURBED = observed("perturbed", [(1e-6, 1e-5), (5e-6, 1e-5)])


def test_a_source_bounds_only_what_it_may() -> None:
    """Never across: a shadow knows nothing of what accumulated, a second run nothing of one module."""
    assert floor_for([SHADOW, FIRST], "isolated") is SHADOW
    assert floor_for([SHADOW, FIRST], "accumulated") is FIRST
    assert floor_for([RUN, FIRST], "isolated") is FIRST
    assert floor_for([RUN, FIRST], "accumulated") is RUN
    assert floor_for([SHADOW], "accumulated") is None
    assert floor_for([RUN, PERTURBED], "isolated") is None
    assert floor_for([], "isolated") is None
    assert BOUNDS["first-order"] == {"isolated", "accumulated"}


def test_the_largest_of_the_measured() -> None:
    """Several good runs are several samples; the first-order floor counts only without any."""
    assert floor_for([RUN, PERTURBED, FIRST, None], "accumulated") is PERTURBED
    small = Noise(1.0, 1.0, "first-order", BOUNDS["first-order"], "")
    assert floor_for([small, RUN], "accumulated") is RUN


def test_what_was_seen_is_doubled_and_said() -> None:
    """Twice the largest distance by each measure, with its words."""
    assert SHADOW is not None and RUN is not None and PERTURBED is not None
    assert (SHADOW.l2, SHADOW.worst) == (NOISE_MARGIN * 3e-6, NOISE_MARGIN * 2e-5)
    assert SHADOW.why == "twice the largest distance to 2 shadows (3e-06)"
    assert RUN.why == "twice the second good run's distance (2e-06)"
    assert PERTURBED.why == "twice the largest growth of 2 perturbed runs (5e-06)"


def test_equal_bits_measure_nothing() -> None:
    """A run that holds the same bits is no source."""
    assert observed("run", [(0.0, 0.0)]) is None
    assert observed("run", []) is None


def run(path: Path, scale: float = 1.0, seed: int = 0) -> Path:
    """A small model whose head may be scaled; ``seed`` perturbs its inputs."""
    torch.manual_seed(0)
    model = Stack(depth=2, width=16)
    with torch.no_grad():
        model.head.weight *= scale
    with observing(path, perturb=seed) as recorder:
        joined = instruments.join(recorder)
        model(torch.tensor([[1, 2, 3]]))
        joined.remove()
    return path


def test_perturbed_runs_are_a_floor_for_compare(tmp_path: Path) -> None:
    """The growth of what was moved by one unit is the floor; a scale of one part in 1e5 lies above it."""
    baseline, target = run(tmp_path / "a"), run(tmp_path / "b", 1 + 1e-5)
    noisy = [run(tmp_path / f"n{seed}", seed=seed) for seed in (1, 2, 3)]
    result = compare(baseline, target, noise=noisy)
    [row] = [row for row in result.rows if row.name == "head:output"]
    assert row.floor is not None and row.measures is not None
    assert (row.floor.kind, row.verdict) == ("measured", "differs")
    assert "perturbed runs" in row.floor.why
    single = [compare(baseline, target, noise=one) for one in noisy]
    floors = [
        next(r.floor.l2 for r in one.rows if r.name == "head:output" and r.floor) for one in single
    ]
    assert row.floor.l2 == max(floors)
    assert len(set(floors)) > 1


def test_one_run_as_ever(tmp_path: Path) -> None:
    """A path by itself, and a list of one, are the same."""
    baseline, target = run(tmp_path / "a"), run(tmp_path / "b")
    noisy = run(tmp_path / "n", seed=5)
    alone, listed = (compare(baseline, target, noise=one) for one in (noisy, [noisy]))
    assert [r.floor for r in alone.rows] == [r.floor for r in listed.rows]


def test_an_equal_run_says_that_it_measures_nothing(tmp_path: Path) -> None:
    """Among several, the one that holds the same bits is named."""
    baseline, again, noisy = run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "n", seed=5)
    result = compare(baseline, again, noise=[again, noisy])
    assert any(str(again) in text and "measures nothing" in text for text in result.problems)


def test_no_run_is_no_noise(tmp_path: Path) -> None:
    """An empty list is none at all: the first-order floor stands."""
    result = compare(run(tmp_path / "a"), run(tmp_path / "b", 1 + 1e-7), noise=[])
    assert "measured" not in {row.floor.kind for row in result.rows if row.floor is not None}
