"""Tiny random models of transformers in which every planted fault shows.

Weights, biases and norms are all random: a bias of zeros or a norm of ones would hide the faults that
touch them. Some tokens have tiny embeddings, as seldom seen tokens do, so that the epsilon of the
first norm matters.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "vocab_size": 256,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    "rms_norm_eps": 1e-6,
    "attn_implementation": "eager",
}
MOE = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
}
FAMILIES = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {}),
    "qwen3-moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", MOE),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {}),
}
FAINT = slice(0, 16)
"""Tokens whose embedding is a hundredth of the others' in size."""


def make(directory: Path, family: str, seed: int, *, bias: bool) -> None:
    """Write one random model; the seed decides its weights, ``bias`` whether linear layers have one."""
    torch.manual_seed(seed)
    name, config, extra = FAMILIES[family]
    biases = {"attention_bias": bias} | ({"mlp_bias": bias} if family == "llama" else {})
    settings = {**SIZES, **extra, **biases}
    model = getattr(transformers, name)(getattr(transformers, config)(**settings))
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith("bias"):
                parameter.normal_(0.0, 0.3)
            elif "norm" in path:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.model.embed_tokens.weight[FAINT] *= 0.01
    model.save_pretrained(directory)


def tokens(seed: int, length: int = 16) -> torch.Tensor:
    """Random tokens [2, length]; the fourth of each row is a faint one."""
    drawn = torch.randint(
        FAINT.stop, SIZES["vocab_size"], (2, length), generator=torch.Generator().manual_seed(seed)
    )
    drawn[:, 3] = 5
    return drawn
