"""Real models from transformers, unchanged, on one process and on two tensor-parallel ranks."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from programs import TORCHRUN, names, plain, program, read, run

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
]

MODEL = """
    import os, sys, torch
    from transformers import AutoModelForCausalLM, LlamaConfig
    what, directory = sys.argv[1:3]
    if what == "make":
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2,
        )
        AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        sys.exit()
    plan = {"tp_plan": "auto"} if "RANK" in os.environ else {}
    model = AutoModelForCausalLM.from_pretrained(directory, **plan)
    ids = torch.arange(16).reshape(2, 8)
    torch.manual_seed(1)
    out = model.train()(input_ids=ids, labels=ids)
    out.loss.backward()
    with torch.inference_mode():
        tokens = model.eval().generate(ids, max_new_tokens=3, do_sample=True)
    if len(sys.argv) > 3:
        gradients = [p.grad for p in model.parameters()]
        torch.save([out.loss.detach(), tokens, torch.get_rng_state(), *gradients], sys.argv[3])
    if "RANK" in os.environ:
        torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A program and the directory of the small random model that it runs."""
    directory = tmp_path_factory.mktemp("model")
    path = program(directory, MODEL)
    made = plain([sys.executable, path, "make", str(directory / "model")])
    assert made.code == 0, made.err
    return path, str(directory / "model")


def test_nothing_changes(tmp_path: Path, model: tuple[str, str]) -> None:
    """Outputs, gradients, sampled tokens and the random state are bit for bit the unobserved run's."""
    path, directory = model
    unseen = plain([sys.executable, path, "run", directory, str(tmp_path / "unseen.pt")])
    assert unseen.code == 0, unseen.err
    command = [sys.executable, path, "run", directory, str(tmp_path / "seen.pt")]
    seen = run(tmp_path / "a", command, "--taps", "modules", "--gradients", "--parameters")
    assert seen.code == 0, seen.err
    before, after = (torch.load(tmp_path / name) for name in ("unseen.pt", "seen.pt"))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    found = read(tmp_path / "a")
    assert {r.step for r in found.records} == {0, 1, 2, 3}, "one forward, three decoding steps"


def test_tensor_parallel_ranks_have_the_same_names(tmp_path: Path, model: tuple[str, str]) -> None:
    """One process and two ranks of tp_plan="auto" record the same points, with coordinates on tp."""
    path, directory = model
    one = run(tmp_path / "tp1", [sys.executable, path, "run", directory], "--gradients")
    two = run(tmp_path / "tp2", [*TORCHRUN, path, "run", directory], "--gradients")
    assert (one.code, two.code) == (0, 0), one.err + two.err
    expected = names(tmp_path / "tp1")
    assert len(expected) > 100
    for rank in (0, 1):
        assert sorted(names(tmp_path / "tp2", rank)) == sorted(expected)
    found = read(tmp_path / "tp2").records
    assert {(r.rank, r.mesh["tp"]) for r in found} == {(0, (0, 2)), (1, (1, 2))}
