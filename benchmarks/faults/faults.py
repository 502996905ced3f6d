"""The table of planted faults: where each goes, and what a tool should say. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field

FAMILIES = ("llama", "qwen3-moe", "gemma")
DENSE = ("llama", "gemma")


@dataclass(frozen=True)
class Expected:
    """What should be named for one fault.

    ``leaf`` is a module's path, or a parameter's or buffer's where ``parameter`` is true; several are
    joined by ``|``. ``parent`` is still accepted, one step less exact. ``operators`` may stand for the line inside the
    leaf, empty where the tree ends at an operator that no one name fits. ``hints`` are the kinds
    of which one applies; empty where none does. The first position of a sequence sees itself alone
    and is not rotated, so that it is true of many faults of attention that only later ones differ.
    """

    leaf: str
    parent: str
    operators: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    parameter: bool = False
    backward: bool = False


@dataclass(frozen=True)
class Fault:
    """One row: a fault, the models it can be planted in, and how they are run."""

    name: str
    expected: Expected
    families: tuple[str, ...] = FAMILIES
    tp: tuple[int, ...] = (1, 2)
    mode: str = "forward"
    dtypes: tuple[str, ...] = ("float32",)
    bias: bool = False
    layer: int = 1
    everywhere: int = 0  # planted in this many layers at once, from the first on

    def expectations(self, layer: int | None = None) -> tuple[Expected, ...]:
        """What should be named, one for each layer that it is planted in."""
        at = range(self.everywhere) if self.everywhere else [self.layer if layer is None else layer]
        return tuple(_in_layer(self.expected, number) for number in at)


def _in_layer(expected: Expected, number: int) -> Expected:
    return Expected(
        expected.leaf.replace("{L}", f"model.layers.{number}"),
        expected.parent.replace("{L}", f"model.layers.{number}"),
        expected.operators,
        expected.hints,
        expected.parameter,
        expected.backward,
    )


ATTENTION = "{L}.self_attn"
SCALE = Expected(ATTENTION, "{L}", ("mul", "div"), ("factor", "region"))
HALVED = ("factor",)

FAULTS: tuple[Fault, ...] = (
    Fault("attention_scale", SCALE, dtypes=("float32", "bfloat16")),
    Fault("attention_scale_everywhere", SCALE, everywhere=4),
    Fault(
        "rope_base",
        Expected("model.rotary_emb.inv_freq", "model.rotary_emb", parameter=True),
        dtypes=("float32", "bfloat16"),
    ),
    Fault("rope_halves", Expected(ATTENTION, "{L}", hints=("permuted", "region"))),
    Fault("rope_layout", Expected("model.rotary_emb", "model", hints=("permuted",))),
    Fault("mask_off_by_one", Expected(ATTENTION, "{L}", ("cat", "add"), ("shifted", "region"))),
    Fault("mask_of_model", Expected("model", "", hints=("shifted", "region"))),
    Fault("norm_epsilon", Expected("{L}.input_layernorm", "{L}"), layer=0),
    Fault("norm_epsilon_larger", Expected("{L}.input_layernorm", "{L}"), layer=0),
    Fault(
        "norm_cast",
        Expected("{L}.input_layernorm", "{L}", hints=("rounding",)),
        dtypes=("bfloat16",),
    ),
    Fault("gelu_variant", Expected("{L}.mlp.act_fn", "{L}.mlp", ("gelu",)), ("gemma",)),
    Fault("router_renormalisation", Expected("{L}.mlp.gate", "{L}.mlp", ("div",)), ("qwen3-moe",)),
    Fault(
        "missing_all_reduce",
        Expected("{L}.self_attn.o_proj", ATTENTION, hints=("partial sum",)),
        tp=(2, 4),
        dtypes=("float32", "bfloat16"),
    ),
    Fault(
        "missing_all_reduce_mlp",
        Expected("{L}.mlp.down_proj|{L}.mlp.experts", "{L}.mlp", hints=("partial sum",)),
        tp=(2,),
    ),
    Fault(
        "doubled_bias",
        Expected("{L}.self_attn.o_proj", ATTENTION, hints=("offset",)),
        tp=(2, 4),
        bias=True,
    ),
    Fault(
        "wrong_shard",
        Expected(
            "{L}.self_attn.v_proj.weight",
            "{L}.self_attn.v_proj",
            hints=("one shard", "region"),
            parameter=True,
        ),
        tp=(2, 4),
    ),
    Fault("dropped_residual", Expected("{L}", "model", ("add",))),
    Fault(
        "position_off_by_one",
        Expected("model", "model.rotary_emb", ("add", "arange")),
        mode="decode",
    ),
    Fault("cache_slot_off_by_one", Expected(ATTENTION, "{L}"), mode="decode"),
    Fault("kv_groups", Expected(ATTENTION, "{L}", hints=("permuted",))),
    Fault("permuted_heads", Expected(ATTENTION, "{L}", hints=("permuted",)), tp=(1,)),
    Fault("norm_offset", Expected("{L}.input_layernorm", "{L}"), ("gemma",)),
    Fault(
        "embedding_scale", Expected("model.embed_tokens", "model", hints=("factor",)), ("gemma",)
    ),
    Fault("activation_sign", Expected("{L}.mlp.act_fn", "{L}.mlp", hints=("sign",)), DENSE),
    Fault("swapped_gate_up", Expected("{L}.mlp", "{L}", ("silu", "gelu", "mul")), DENSE),
    Fault(
        "weight_element",
        Expected(
            "{L}.self_attn.o_proj.weight",
            "{L}.self_attn.o_proj",
            hints=("region",),
            parameter=True,
        ),
        tp=(1,),
    ),
    Fault(
        "weight_row",
        Expected(
            "{L}.self_attn.k_proj.weight",
            "{L}.self_attn.k_proj",
            hints=("region",),
            parameter=True,
        ),
        tp=(1,),
    ),
    Fault(
        "exchanged_experts",
        Expected(
            "{L}.mlp.experts.down_proj",
            "{L}.mlp.experts",
            hints=("permuted", "region"),
            parameter=True,
        ),
        ("qwen3-moe",),
    ),
    Fault(
        "bias_gradient_halved",
        Expected(
            "{L}.self_attn.o_proj.bias",
            "{L}.self_attn.o_proj",
            hints=HALVED,
            parameter=True,
            backward=True,
        ),
        ("llama", "qwen3-moe"),
        mode="backward",
        bias=True,
    ),
    Fault(
        "norm_gradient_unreduced",
        Expected(
            "{L}.self_attn.q_norm.weight",
            "{L}.self_attn.q_norm",
            hints=("partial sum",),
            parameter=True,
            backward=True,
        ),
        ("qwen3-moe",),
        tp=(2,),
        mode="backward",
    ),
    Fault(
        "input_gradient_unreduced",
        Expected("{L}.self_attn.q_proj", ATTENTION, hints=("partial sum",), backward=True),
        DENSE,
        tp=(2,),
        mode="backward",
    ),
    Fault(
        "activation_gradient_halved",
        Expected("{L}.mlp.act_fn", "{L}.mlp", hints=HALVED, backward=True),
        DENSE,
        mode="backward",
    ),
)
BY_NAME = {fault.name: fault for fault in FAULTS}


@dataclass(frozen=True)
class Pair:
    """Two faults in one run, as ``name@layer+name@layer``."""

    text: str
    families: tuple[str, ...]
    tp: tuple[int, ...] = (1,)
    mode: str = "forward"
    bias: bool = False
    dtypes: tuple[str, ...] = field(default=("float32",))


PAIRS: tuple[Pair, ...] = (
    Pair("attention_scale@1+swapped_gate_up@2", DENSE, (1, 2)),
    Pair("attention_scale@1+router_renormalisation@2", ("qwen3-moe",), (1, 2)),
    Pair("attention_scale@1+swapped_gate_up@1", DENSE),
    Pair("rope_halves@0+attention_scale@1", FAMILIES),
    Pair("norm_offset@1+attention_scale@1", ("gemma",)),
    Pair("swapped_gate_up@1+activation_sign@1", ("llama",)),
    Pair("dropped_residual@1+attention_scale@1", ("llama",)),
    Pair("weight_row@1+gelu_variant@2", ("gemma",)),
    Pair("missing_all_reduce@1+attention_scale@2", ("llama", "gemma"), (2,)),
    Pair("doubled_bias@1+attention_scale@1", ("llama",), (2,), bias=True),
)


@dataclass(frozen=True)
class Rewrite:
    """A change that is right, so that naming anything is a false alarm."""

    name: str
    families: tuple[str, ...] = FAMILIES
    tp: tuple[int, ...] = (1, 2)
    dtypes: tuple[str, ...] = ("float32", "bfloat16")


REWRITES: tuple[Rewrite, ...] = (
    Rewrite("reversed_experts", ("qwen3-moe",)),
    Rewrite("batched_experts", ("qwen3-moe",)),
    Rewrite("fused_qkv"),
    Rewrite("chunked_mlp"),
    Rewrite("sdpa"),
    Rewrite("renamed_arguments"),
)
