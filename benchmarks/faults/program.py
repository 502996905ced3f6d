"""The program under test; it knows nothing of Twinrun. One random model, whole or spread, run once.

python -m benchmarks.faults.program make DIR --family llama [--bias] [--seed 0]
python -m benchmarks.faults.program run DIR [--mode backward] [--dtype bfloat16] [--fault NAME@LAYER]
python -m torch.distributed.run --nproc-per-node 2 -m benchmarks.faults.program run DIR ...
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import transformers
from benchmarks.faults.models import FAMILIES, make, tokens
from benchmarks.faults.plants import plant, rewrite_before, rewrite_built
from torch import nn

PREFILL = 12


def build(given: argparse.Namespace) -> nn.Module:
    """The model as the command line asks for it: spread under torchrun, with what is to be planted."""
    plan = {"tp_plan": "auto"} if "RANK" in os.environ else {}
    options = rewrite_before(given.rewrite)
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        given.model, dtype=getattr(torch, given.dtype), **plan, **options
    )
    model.train(given.mode == "backward")
    rewrite_built(model, given.rewrite)
    plant(model, given.fault)
    return model


def drive(model: nn.Module, mode: str, seed: int) -> list[torch.Tensor]:
    """Run it: one forward pass, one with a backward pass, or a prefill and teacher-forced steps.

    Returns the logits of each call. Decoding is given its tokens, so that both runs of a pair
    stay on the same ones whatever a fault makes of the logits.
    """
    given = tokens(seed)
    if mode == "backward":
        result = model(given, labels=given, use_cache=False)
        result.loss.backward()
        return [result.logits.detach()]
    with torch.no_grad():
        if mode == "forward":
            return [model(given, use_cache=False).logits]
        cache = transformers.DynamicCache(config=model.config)
        parts = given.split([PREFILL, *[1] * (given.shape[1] - PREFILL)], dim=1)
        return [model(part, past_key_values=cache, use_cache=True).logits for part in parts]


def save(path: str, model: nn.Module, logits: list[torch.Tensor]) -> None:
    """Write the logits and the whole gradients, for the table of effects; all ranks take part."""
    grads = {
        name: getattr(p.grad, "full_tensor", lambda p=p: p.grad)().clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save({"logits": torch.cat(logits, dim=1), "grads": grads}, path)


def run(given: argparse.Namespace) -> None:
    """Build the model, drive it, and save what it gave back if asked to."""
    model = build(given)
    logits = drive(model, given.mode, given.seed)
    if given.save:
        save(given.save, model, logits)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", choices=["make", "run"])
    parser.add_argument("model")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="llama")
    parser.add_argument("--bias", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--mode", choices=["forward", "backward", "decode"], default="forward")
    parser.add_argument("--fault", default="", help="NAME@LAYER, several joined by +")
    parser.add_argument("--rewrite", default="", help="a change that is right")
    parser.add_argument("--save", default="", help="where to write logits and gradients")
    return parser.parse_args(arguments)


def main() -> None:
    given = parse()
    warnings.filterwarnings("ignore")
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    if given.job == "make":
        make(Path(given.model), given.family, given.seed, bias=given.bias)
    else:
        run(given)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
