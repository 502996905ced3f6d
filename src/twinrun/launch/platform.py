"""What this machine settles: how many ranks it takes, and the process group's backend."""

from __future__ import annotations

from twinrun.env import Origin
from twinrun.env import variables as V
from twinrun.launch.state import State

RULE = "launch.platform"


def fit_platform(state: State) -> None:
    """One rank a GPU where nothing was said; NCCL refused where there is no GPU to use."""
    _fill_ranks(state)
    _check_backend(state)
    _bound_threads(state)


def _fill_ranks(state: State) -> None:
    gpus, how = state.platform.gpus, state.platform.how
    if state.args.nproc_per_node is None:
        ranks = gpus or 1
        told = f"one rank a GPU ({how})" if gpus else f"no GPU here ({how})"
        text = f"--nproc-per-node {ranks}: {told}"
        state.adjust(RULE, "info", text, nproc_per_node=ranks)


def _bound_threads(state: State) -> None:
    """One thread a rank where nothing was said: what torchrun sets too, with a banner."""
    if state.args.ranks_per_node > 1 and V.OMP_NUM_THREADS.get(state.environ) is None:
        state.write(V.OMP_NUM_THREADS, "1", Origin("rule", RULE))
        state.decide(RULE, "debug", "OMP_NUM_THREADS is set to 1: several ranks share this machine")


def _check_backend(state: State) -> None:
    args, gpus = state.args, state.platform.gpus
    if args.backend != "nccl" or gpus is None:
        return
    if gpus == 0:
        do = "use --backend gloo, or make the GPUs visible (CUDA_VISIBLE_DEVICES)"
        state.refuse(RULE, f"--backend nccl, and no GPU is visible ({state.platform.how})", do)
    elif gpus < args.ranks_per_node:
        seen = f"--nproc-per-node {args.ranks_per_node} with nccl on {gpus} visible GPUs"
        state.refuse(RULE, seen, f"use at most {gpus}: NCCL takes one rank a GPU")
