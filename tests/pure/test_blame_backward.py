"""Which gradients a graft in the backward pass replaces, and which it leaves behind it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twinrun.diagnosis.backward import same_tensors


def view(*records: tuple[str, tuple[int, ...]]) -> Any:
    return SimpleNamespace(
        records=[
            SimpleNamespace(process=0, number=at, name=name, sources=sources)
            for at, (name, sources) in enumerate(records)
        ]
    )


def test_one_tensor_that_several_modules_are_given() -> None:
    """Earlier records of it hold the share that was replaced; so does what a module around sends back."""
    run = view(
        ("norm:output", ()), ("attn:input.x", (0,)),
        ("attn.q:input.x", (1,)), ("attn.k:input.x", (2,)), ("other:input.x", ()),
    )  # fmt: skip
    assert same_tensors(run, ["attn.k:input.x:grad"]) == {
        "norm:output:grad", "attn:input.x:grad", "attn:input.x:grad.own", "attn.q:input.x:grad",
    }  # fmt: skip
    assert same_tensors(run, ["other:input.x:grad"]) == set()
