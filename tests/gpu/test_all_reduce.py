"""The all-reduce kernels on real GPUs, every scenario with 2 and, where there are as many, 4."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("all_reduce_worker.py")
GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
SCENARIOS = (
    "symmetric_sums", "ipc_sums", "short_way", "alike_across_algorithms", "tree_of_two_and_four", "graphs",
    "forced_pull", "rows_are_used_again", "two_streams", "far_apart",
    "closed_in_any_order", "leaks", "other_pools",
)  # fmt: skip

pytestmark = pytest.mark.gpu


def run(ranks: int, *scenarios: str, gpus: int | None = None, **variables: str) -> None:
    """Run the scenarios on ``ranks`` ranks, one a GPU unless ``gpus`` do; fail with what they printed."""
    if (gpus or ranks) > GPUS:
        pytest.skip(f"needs {gpus or ranks} GPUs, this machine has {GPUS}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    done = subprocess.run(
        [*command, str(ranks), str(WORKER), *scenarios],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=280,
    )
    missing = [name for name in scenarios if f"ok {name}" not in done.stdout]
    assert not missing, f"{missing}\n{done.stdout[-6000:]}\n{done.stderr[-4000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [2, 4])
def test_every_scenario(gpus: int) -> None:
    """Sums, graphs, streams, closing and memory hold on this many GPUs (see each scenario's rule)."""
    run(gpus, *SCENARIOS)


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [2, 4])
def test_checked_mode_names_the_rank_that_never_arrives(gpus: int) -> None:
    """Nothing hangs: the report has the point, the rank and the size."""
    run(gpus, "never_arrives", TWINRUN_ALL_REDUCE_CHECK="1", TWINRUN_ALL_REDUCE_TIMEOUT_S="2")


@pytest.mark.slow
def test_expandable_segments_are_summed_through_the_workspace() -> None:
    """Memory that CUDA IPC does not reach is never read in place, and no sum changes."""
    run(2, "graph_inputs_unreachable", PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, 4, 6, 8])
def test_the_kernels_of_more_ranks_than_gpus(ranks: int) -> None:
    """Sums of every kernel but two_shot_pull to the bit, where ranks take turns on two GPUs."""
    run(ranks, "pushed_through_plain_memory", "ipc_sums", gpus=2)
