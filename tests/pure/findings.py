"""Made-up findings of blame for the report's tests."""

from __future__ import annotations

from dataclasses import replace

from comparisons import close, differing, divergence, result

from twinrun.comparison.result import Divergence, Hint, Result
from twinrun.diagnosis.finding import Finding, Operator, Part, Pass, Proof, Shadow, Suspect

MODULE = "model.layers.2.self_attn"


def compared() -> Result:
    """A model of four blocks whose third attention differs, and all that follows from it."""
    rows = []
    for layer in range(4):
        for port in ("self_attn:input.hidden_states", "self_attn:output", "mlp:output"):
            name, at = f"model.layers.{layer}.{port}", len(rows) + 1
            bad = layer > 2 or (layer == 2 and port != "self_attn:input.hidden_states")
            rows.append(differing(at, name, 0.2) if bad else close(at, name))
    first = next(row for row in rows if row.verdict == "differs")
    return result(rows, Divergence(first, 7, (rows[6],)), advice=divergence().advice)


def blame() -> Finding:
    """One fault, with its operator, hint, shadow and a proof that healed; every other module is clean."""
    held = compared()
    parts = tuple(_part(row.position, row.name) for row in held.rows if row.name.endswith("output"))
    part = next(part for part in parts if part.module == MODULE)
    proof = Proof("healed", (f"{MODULE}:output",), "lm_head:output", 0.31, 4e-7, 0.9, "the logits agree")  # fmt: skip
    suspect = Suspect(
        MODULE, "LlamaAttention", f"{MODULE}:output", "module", part, part.isolated,
        Operator("softmax", "scale", "its input is divided by 9.2 where the baseline divides by 8.0"),
        Hint("factor", "the target is 0.87 x the baseline", 2e-7), proof, "",
    )  # fmt: skip
    runs = (
        Pass(1, "baseline", "record every module", "python /home/jane/gen.py", "/tmp/x/a", 3.2, 0),
        Pass(2, "target", "isolate the blocks", "torchrun gen.py --tp 2", "/tmp/x/b", 4.1, 0),
    )
    return Finding(
        "blamed", held, (suspect,), parts, proof, runs, (), ("the runs are deterministic",),
        ("twinrun show runs/tp2 model.layers.2.self_attn:output",),
    )  # fmt: skip


def two_faults() -> Finding:
    """A module and a parameter."""
    one = blame()
    other = Suspect("model.norm", "LlamaRMSNorm", "model.norm.weight:parameter", "parameter",
                    proof=Proof("partly"), why="every element is doubled")  # fmt: skip
    return replace(one, suspects=(*one.suspects, other), proof=Proof("healed", text="both together heal the output"))  # fmt: skip


def clean() -> Finding:
    """Nothing is at fault."""
    held = result([close(1, "model.layers.0.mlp:output")])
    return Finding("clean", held, parts=(_part(1, "model.layers.0.mlp:output"),))


def unequal_inputs() -> Finding:
    """The programs were not given the same."""
    held = result([differing(1, "model:input.input_ids")])
    return Finding("inputs differ", held, roots=held.rows)


def _part(position: int, name: str) -> Part:
    module = name.partition(":")[0]
    bad = module == MODULE
    row = differing(position, name, 0.24) if bad else close(position, name, 3e-7)
    return Part(
        position, module, "LlamaAttention" if "attn" in module else "LlamaMLP", "differs" if bad else "clean",
        True, "grafted", row, row, close(position, f"{module}:input.hidden_states"),
        Shadow("float64", 1e-7, 0.24, 0.24, 3e-7) if bad else None, 166.0 if bad else 0.4,
    )  # fmt: skip


FOUND = {"blame": blame, "two_faults": two_faults, "clean": clean, "unequal_inputs": unequal_inputs}
