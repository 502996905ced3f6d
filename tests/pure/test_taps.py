"""Which modules a --taps text chooses."""

from __future__ import annotations

import pytest

from twinrun.errors import UsageError
from twinrun.recorder.taps import Node, Taps

MODEL = [
    Node(""),
    Node("model"),
    Node("model.embed", leaf=True),
    Node("model.layers", container=True),
    Node("model.layers.0", repeated=True),
    Node("model.layers.0.attn"),
    Node("model.layers.0.attn.q", leaf=True),
    Node("model.layers.0.mlp"),
    Node("model.layers.0.mlp.experts", container=True),
    Node("model.layers.0.mlp.experts.0", leaf=True, repeated=True),
    Node("lm_head", leaf=True),
]


def _chosen(text: str, prefix: str = "") -> list[str]:
    return list(Taps.parse(text).select(MODEL, prefix))


def test_blocks_are_layers_and_their_parts() -> None:
    """blocks: the root, the repeated layers, and the children of both and of what holds them."""
    assert _chosen("blocks") == [
        "",
        "model",
        "model.embed",
        "model.layers.0",
        "model.layers.0.attn",
        "model.layers.0.mlp",
        "lm_head",
    ]


def test_blocks_hold_routers() -> None:
    """blocks: what chooses among experts, by its class or by its name beside them; no other gate."""
    nodes = [
        *MODEL,
        Node("model.layers.0.mlp.gate", leaf=True, class_name="Linear"),
        Node("model.layers.0.moe.choose", leaf=True, class_name="Qwen3MoeTopKRouter"),
        Node("model.layers.0.attn.gate", leaf=True, class_name="Linear"),
        Node("model.layers.0.mlp.up", leaf=True, class_name="Linear"),
    ]
    added = set(Taps.parse("blocks").select(nodes)) - set(_chosen("blocks"))
    assert added == {"model.layers.0.mlp.gate", "model.layers.0.moe.choose"}


def test_words() -> None:
    """modules are all that can be called, leaves those without children, none is none."""
    assert len(_chosen("modules")) == 9
    assert _chosen("leaves") == [
        "model.embed",
        "model.layers.0.attn.q",
        "model.layers.0.mlp.experts.0",
        "lm_head",
    ]
    assert _chosen("none") == []


def test_globs_and_ports() -> None:
    """A glob crosses dots; after a colon it chooses ports; words and globs may be mixed."""
    assert _chosen("*.mlp,lm_head") == ["model.layers.0.mlp", "lm_head"]
    chosen = Taps.parse("*.mlp:output,:output").select(MODEL)
    assert list(chosen) == ["model.layers.0.mlp", ""]
    assert "output" in chosen[""]
    assert "output.0" in chosen[""]
    assert "input.x" not in chosen[""]
    assert "output_2" not in chosen[""]


def test_prefix_is_part_of_the_name() -> None:
    """In a root with a label, globs see the label in front."""
    assert _chosen("Critic.lm_head", prefix="Critic") == ["lm_head"]
    assert _chosen("lm_head", prefix="Critic") == []


def test_unmatched_patterns() -> None:
    """A glob that matches no module is told."""
    assert Taps.parse("vision.*,lm_head,blocks").unmatched(MODEL) == ("vision.*",)


@pytest.mark.parametrize("text", ["", "a,,b", "none,blocks"])
def test_wrong_texts(text: str) -> None:
    """An empty name, or none among others, is refused."""
    with pytest.raises(UsageError):
        Taps.parse(text)
