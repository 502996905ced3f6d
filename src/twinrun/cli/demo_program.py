"""A program that knows nothing of Twinrun: a small Llama, whole or spread over torchrun's ranks.

    python program.py make MODEL_DIR
    python program.py run MODEL_DIR
    torchrun --nproc-per-node 2 program.py run MODEL_DIR --drop-all-reduce 2.down_proj

`twinrun demo` copies this file into its own directory and runs it from there.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is made here, nothing is looked up

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

LAYERS, VOCABULARY, BATCH, TOKENS, STEPS = 4, 512, 2, 16, 2
ROW_PARALLEL = ("o_proj", "down_proj")  # each layer ends its two halves in one all-reduce


def make(directory: str) -> None:
    """Write a random Llama of about 1.3 million float32 parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
        # Wider than usual, so that a layer of this small model adds as much to the residual as a
        # trained one does.
        initializer_range=0.08,
        attn_implementation="eager",
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def load(directory: str) -> LlamaForCausalLM:
    """The model: whole in a plain process, by transformers' tensor-parallel plan under torchrun."""
    plan = {"tp_plan": "auto"} if "RANK" in os.environ else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older spelling runs on more versions
        return LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32, **plan).eval()


@contextmanager
def dropped_all_reduce(place: str) -> Iterator[None]:
    """Skip one all-reduce of every forward pass on all ranks: the fault, such as ``2.down_proj``.

    transformers calls ``torch.distributed.all_reduce`` once after each row-parallel layer, in the
    order of execution, so the layer's own all-reduce is known by its place in that order.
    """
    layer, _, projection = place.partition(".")
    wanted = len(ROW_PARALLEL) * int(layer) + ROW_PARALLEL.index(projection)
    reduce, calls = dist.all_reduce, 0

    def all_reduce(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        place_in_pass, calls = calls % (LAYERS * len(ROW_PARALLEL)), calls + 1
        return None if place_in_pass == wanted else reduce(tensor, *args, **kwargs)

    dist.all_reduce = all_reduce
    try:
        yield
    finally:
        dist.all_reduce = reduce
    if calls != STEPS * LAYERS * len(ROW_PARALLEL):
        raise SystemExit(
            f"the fault was not planted: {calls} all-reduces in {STEPS} forward passes, "
            f"expected {STEPS * LAYERS * len(ROW_PARALLEL)}; this transformers reduces otherwise"
        )


@torch.no_grad()
def run(directory: str, fault: str | None) -> None:
    """A few forward passes on random tokens; prints a digest of the outputs and of the random state."""
    model = load(directory)
    torch.manual_seed(1)
    digest = hashlib.sha256()
    with dropped_all_reduce(fault) if fault else nullcontext():
        for _ in range(STEPS):
            tokens = torch.randint(0, VOCABULARY, (BATCH, TOKENS))
            logits = model(tokens, use_cache=False).logits
            digest.update(logits.numpy().tobytes())
    state = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    rank = os.environ.get("RANK", "0")
    told = f"rank {rank}  outputs {digest.hexdigest()[:16]}  random state {state.hexdigest()[:16]}"
    print(
        told + "\n", end="", flush=True
    )  # one write, so that ranks do not break each other's lines
    if dist.is_initialized():
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="A small Llama, whole or tensor-parallel.")
    parser.add_argument("job", choices=["make", "run"])
    parser.add_argument("model", help="directory of the model")
    parser.add_argument("--drop-all-reduce", metavar="LAYER.PROJECTION", help="the fault")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # two ranks share two cores
    transformers_logging.disable_progress_bar()
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    if arguments.job == "make":
        make(arguments.model)
    else:
        run(arguments.model, arguments.drop_all_reduce)


if __name__ == "__main__":
    main()
