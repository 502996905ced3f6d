"""Shadows, operators, perturbation and own gradients in real models, on one rank and on two."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from programs import TORCHRUN, Ended, plain, program, read, run

from twinrun.diagnosis.operator_file import sequences
from twinrun.recorder.options import Options
from twinrun.recorder.runner import run_program

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
]

MODEL = """
    import os, sys, torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3MoeConfig, StaticCache
    what, directory = sys.argv[1:3]
    sizes = dict(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )
    if what == "make":
        for kind, more in (
            (LlamaConfig, {}),
            (Qwen3MoeConfig, dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=8)),
        ):
            torch.manual_seed(0)
            config = kind(**sizes, **more)
            AutoModelForCausalLM.from_config(config).save_pretrained(f"{directory}/{config.model_type}")
        sys.exit()
    plan = {"tp_plan": "auto"} if "RANK" in os.environ else {}
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, what), **plan)
    ids = torch.arange(16).reshape(2, 8)
    torch.manual_seed(1)
    out = model.train()(input_ids=ids, labels=ids)
    out.loss.backward()
    with torch.inference_mode():
        model.eval()
        tokens = model.generate(ids, max_new_tokens=3, do_sample=True)
        more = model.generate(ids, max_new_tokens=2, do_sample=False, cache_implementation="static",
                              disable_compile=True)
    if len(sys.argv) > 3:
        gradients = [p.grad for p in model.parameters()]
        gradients = [g.to_local() if hasattr(g, "to_local") else g for g in gradients]
        torch.save([out.loss.detach(), out.logits.detach(), tokens, more, torch.get_rng_state(),
                    *gradients], sys.argv[3] + os.environ.get("RANK", ""))
    if "RANK" in os.environ:
        torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A program and the directory of the small random models that it runs."""
    directory = tmp_path_factory.mktemp("models")
    path = program(directory, MODEL)
    made = plain([sys.executable, path, "make", str(directory)])
    assert made.code == 0, made.err
    return path, directory


def same(before: Path, after: Path) -> bool:
    """Whether two runs left the same values, bit for bit."""
    pair = [torch.load(path) for path in (before, after)]
    return len(pair[0]) == len(pair[1]) and all(map(torch.equal, *pair))


def ended(*runs: Ended) -> None:
    assert [one.code for one in runs] == [0] * len(runs), "\n".join(one.err for one in runs)


def distances(out: Path, rank: int = 0) -> dict[str, float]:
    """Each shadow's distance from the output that it stands beside, the largest over the steps."""
    capture = read(out)
    mine = {(r.step, r.name, r.occurrence): r for r in capture.records if r.rank == rank}
    found: dict[str, float] = {}
    for (step, name, occurrence), record in mine.items():
        if record.role != "shadow":
            continue
        native = mine[step, name.replace(":shadow.", ":"), occurrence]
        a, b = (capture.tensor(one).double() for one in (native, record))
        away = float((a - b).norm() / b.norm()) if b.any() else 0.0
        found[name] = max(found.get(name, 0.0), away)
    return found


@pytest.mark.parametrize(
    "family, dtype, most", [("llama", "float32", 2e-6), ("qwen3_moe", "bfloat16", 2e-2)]
)
def test_shadows_of_a_model(
    tmp_path: Path, models: tuple[str, Path], family: str, dtype: str, most: float
) -> None:
    """Every module has one within its rounding, through caches, sampling and backward; nothing changes."""
    path, directory = models
    command = [sys.executable, path, dtype, str(directory / family)]
    unseen = plain([*command, str(tmp_path / "unseen.pt")])
    seen = run(
        tmp_path / "a", [*command, str(tmp_path / "seen.pt")],
        "--taps", "modules", "--shadow", "*layers.1*,lm_head,model.norm", "--operators", "*",
    )  # fmt: skip
    ended(unseen, seen)
    assert same(tmp_path / "unseen.pt", tmp_path / "seen.pt")
    found = distances(tmp_path / "a")
    assert {"model.layers.1.self_attn:shadow.output.0", "model.layers.1:shadow.output"} < set(found)
    assert not {name: away for name, away in found.items() if away > most}
    assert not {"shadows", "operators"} & set(read(tmp_path / "a").processes[0].reports)


def test_all_instruments_on_tensor_parallel_ranks(tmp_path: Path, models: tuple[str, Path]) -> None:
    """Shadows with their collectives, operators and own gradients at once; nothing changes."""
    path, directory = models
    command = [*TORCHRUN, path, "float32", str(directory / "qwen3_moe")]
    unseen = plain([*command, str(tmp_path / "unseen.pt")])
    options = Options(
        taps="modules", gradients=True, own_gradients=True, operators="*", shadow="model.layers.1*"
    )
    code = run_program(
        [*command, str(tmp_path / "seen.pt")], out=tmp_path / "a", options=options,
        overwrite=False, say=lambda line: None,
    )  # fmt: skip
    assert (unseen.code, code) == (0, 0)
    capture = read(tmp_path / "a")
    for rank in (0, 1):
        assert same(tmp_path / f"unseen.pt{rank}", tmp_path / f"seen.pt{rank}")
        found = distances(tmp_path / "a", rank)
        assert "model.layers.1.self_attn:shadow.output.0" in found
        assert not {name: away for name, away in found.items() if away > 2e-6}
        own = [r.name for r in capture.records if r.rank == rank and r.name.endswith(":grad.own")]
        assert "model.layers.1.mlp:input.hidden_states:grad.own" in own
    for process in capture.processes:
        assert not {"shadows", "operators"} & set(process.reports)
        listed = next(iter(sequences(capture.path, process, "model.layers.1.self_attn")))
        origins = {one.origin for step in listed.steps for one in step.inputs}
        assert {"child:q_norm:output", "child:v_proj:output"} <= origins
        assert not listed.cut


def test_perturbed_replicas_stay_replicas(tmp_path: Path, models: tuple[str, Path]) -> None:
    """The embedding is moved the same on both ranks, and as on one."""
    path, directory = models
    embedded = {}
    for name, start, seed in (
        ("one", [sys.executable], "7"),
        ("two", TORCHRUN, "7"),
        ("plain", [sys.executable], "0"),
    ):
        command = [*start, path, "float32", str(directory / "llama")]
        ended(run(tmp_path / name, command, "--taps", "*embed_tokens", "--perturb", seed))
        capture = read(tmp_path / name)
        embedded[name] = [
            capture.tensor(r).clone()
            for r in capture.records
            if r.name == "model.embed_tokens:output" and r.step == 0
        ]
    [alone], [first, second], [plainly] = embedded["one"], embedded["two"], embedded["plain"]
    assert torch.equal(first, second) and torch.equal(first, alone)
    assert not torch.equal(alone, plainly) and torch.allclose(alone, plainly, rtol=2e-7, atol=0)
