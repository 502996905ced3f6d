"""A program that knows nothing of Twinrun: one tiny random model of transformers, whole or spread.

python program.py make DIR --family llama [--layers 2]
python program.py run DIR [--dtype bfloat16] [--backward] [--generate]
torchrun --nproc-per-node 2 program.py run DIR ...
"""

from __future__ import annotations

import argparse
import logging
import os

import torch
import torch.distributed as dist
import transformers

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "vocab_size": 256,
    "max_position_embeddings": 128,
    "initializer_range": 0.08,
}
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {}),
    "qwen3-moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", MOE),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {"sliding_window": 8}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {"sliding_window": 8}),
}


def make(directory: str, family: str, layers: int, seed: int) -> None:
    """Write a random model; the seed decides its weights."""
    torch.manual_seed(seed)
    model, config, extra = FAMILIES[family]
    settings = {**SIZES, **extra, "num_hidden_layers": layers, "attn_implementation": "eager"}
    built = getattr(transformers, model)(getattr(transformers, config)(**settings))
    built.save_pretrained(directory)


def run(directory: str, dtype: str, backward: bool, generate: bool, steps: int) -> None:
    """Forward passes on random tokens, with a backward pass or greedy decoding if asked for."""
    plan = {"tp_plan": "auto"} if "RANK" in os.environ else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=getattr(torch, dtype), **plan
    )
    torch.manual_seed(1)
    for _ in range(steps):
        tokens = torch.randint(0, model.config.vocab_size, (2, 16))
        if generate:
            model.eval().generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0)
        elif backward:
            model.train()(tokens, labels=tokens, use_cache=False).loss.backward()
        else:
            with torch.no_grad():
                model.eval()(tokens, use_cache=False)
    if dist.is_initialized():
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="One tiny random model of transformers.")
    parser.add_argument("job", choices=["make", "run"])
    parser.add_argument("model")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="llama")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--generate", action="store_true")
    parser.add_argument("--steps", type=int, default=1)
    given = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    if given.job == "make":
        make(given.model, given.family, given.layers, given.seed)
    else:
        run(given.model, given.dtype, given.backward, given.generate, given.steps)


if __name__ == "__main__":
    main()
