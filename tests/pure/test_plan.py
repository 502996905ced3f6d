"""The chooser: which all-reduce, in which order, and why not the others. Pure, without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.collectives.facts import GroupFacts, Request
from twinrun.collectives.plan import (
    BACKENDS,
    INTEGERS,
    KERNEL_DTYPES,
    SUMMABLE,
    WORKSPACES,
    makeable,
    plan,
)
from twinrun.collectives.wishes import read_wishes
from twinrun.errors import LaunchError, UnavailableError, UsageError

FOUR = GroupFacts(
    ranks=(0, 1, 2, 3), nodes=("a",) * 4, device="cuda", library="nccl", gpu="NVIDIA H200",
    capability=(9, 0), peer_access=True,
)  # fmt: skip
TWO_NODES = replace(FOUR, nodes=("a", "a", "b", "b"), job_nodes=2)
CPU = replace(FOUR, device="cpu", library="gloo", gpu="", peer_access=None)
HIP = replace(FOUR, device="hip", gpu="AMD", peer_access=None)
BF16 = Request(96 << 10, "bfloat16")


def _off(facts: GroupFacts, *backends: str) -> GroupFacts:
    return replace(facts, off=tuple((name, "switched off") for name in backends))


@pytest.mark.parametrize(
    ("facts", "more", "backend", "algorithm", "order"),
    [
        (FOUR, {}, "symmetric", None, "ranks"),
        (_off(FOUR, "symmetric"), {}, "ipc", None, "ranks"),
        (_off(FOUR, "symmetric", "ipc"), {}, "nccl", "library", "library"),
        (_off(FOUR, "symmetric", "ipc"), {"order_asked": True}, "nccl", "gather_sum", "ranks"),
        (_off(FOUR, "symmetric", "ipc"), {"order": "any", "order_asked": True}, "nccl", "library", "library"),
        (TWO_NODES, {}, "nccl", "library", "library"),
        (replace(TWO_NODES, deterministic=True), {}, "nccl", "gather_sum", "ranks"),
        (TWO_NODES, {"order": "tree", "order_asked": True}, "nccl", "gather_sum", "tree"),
        (FOUR, {"dtype": "int32"}, "nccl", "library", "ranks"),
        (FOUR, {"dtype": "int16"}, "nccl", "gather_sum", "ranks"),
        (FOUR, {"dtype": "float64"}, "nccl", "library", "library"),
        (replace(FOUR, ranks=(0, 1, 2, 3, 4), nodes=("a",) * 5), {}, "nccl", "library", "library"),
        (CPU, {}, "shared_memory", "slices", "ranks"),
        (CPU, {"order": "tree"}, "shared_memory", "slices", "tree"),
        (replace(CPU, nodes=("a", "a", "b", "b")), {}, "gloo", "library", "library"),
        (HIP, {}, "aiter", "aiter", "library"),
        (replace(HIP, deterministic=True), {}, "nccl", "gather_sum", "ranks"),
        (replace(HIP, missing=(("aiter", "not there"),)), {}, "nccl", "library", "library"),
        (replace(FOUR, ranks=(7,), nodes=("a",)), {}, "none", "copy", "ranks"),
        (FOUR, {"nbytes": 0}, "none", "copy", "ranks"),
        (replace(CPU, library="mpi", nodes=("a", "a", "b", "b")), {}, "mpi", "library", "library"),
    ],
)  # fmt: skip
def test_the_table(
    facts: GroupFacts, more: dict[str, Any], backend: str, algorithm: str | None, order: str
) -> None:
    """What is chosen for a group and a request, and in which order it sums."""
    chosen = plan(facts, replace(BF16, **more))
    assert (chosen.backend, chosen.order) == (backend, order)
    assert algorithm is None or chosen.algorithm == algorithm
    assert chosen.reason


def test_across_nodes_both_in_node_backends_are_declined_with_the_reason() -> None:
    """symmetric and ipc reach one node; a plan across two says so for each."""
    declined = dict(plan(TWO_NODES, BF16).declined)
    for name in ("symmetric", "ipc"):
        assert declined[name] == "the group spans 2 nodes (it reaches one node)"


@pytest.mark.parametrize(
    ("facts", "more", "backend", "reason"),
    [
        (FOUR, {"dtype": "int32"}, "symmetric", "not int32"),
        (replace(FOUR, peer_access=False), {}, "ipc", "tested copy"),
        (replace(FOUR, ranks=tuple(range(5)), nodes=("a",) * 5), {}, "symmetric", "the group has 5"),
        (replace(FOUR, asked="nccl"), {}, "symmetric", "nccl was asked for by name"),
        (replace(HIP, deterministic=True), {}, "aiter", "order that was asked for"),
        (CPU, {}, "symmetric", "it needs CUDA GPUs, the group is on cpu"),
        (replace(FOUR, missing=(("symmetric", "rank 2: no driver"),)), {}, "symmetric", "rank 2"),
    ],
)  # fmt: skip
def test_every_refusal_says_what_was_seen(
    facts: GroupFacts, more: dict[str, Any], backend: str, reason: str
) -> None:
    """A declined backend comes with the fact that it met."""
    chosen = plan(replace(facts, library=facts.library), replace(BF16, **more))
    assert reason in str(chosen.why_not(backend))


def test_capturing_leaves_gloo_out() -> None:
    """A collective on the host cannot be captured: with nothing else left, that is an error."""
    facts = _off(replace(FOUR, library="gloo"), "symmetric", "ipc")
    with pytest.raises(UnavailableError, match="captured in a CUDA graph"):
        plan(facts, replace(BF16, capturing=True))


def test_nothing_left_lists_every_reason() -> None:
    """The error of a group that nothing can serve names every backend."""
    with pytest.raises(UnavailableError) as caught:
        plan(replace(CPU, library=""), replace(BF16, dtype="bool"))
    assert all(f"{name}:" in str(caught.value) for name in BACKENDS)


def test_a_contiguous_copy_is_said_and_changes_nothing_else() -> None:
    """How one rank's tensor lies in memory must not change the choice."""
    plain, strided = plan(FOUR, BF16), plan(FOUR, replace(BF16, contiguous=False))
    assert "contiguous copy" in strided.reason
    assert replace(strided, reason=plain.reason) == plain


ANY_FACTS = st.builds(
    lambda size, nodes, device, off, asked, deterministic: GroupFacts(
        ranks=tuple(range(size)),
        nodes=tuple(f"n{rank * nodes // size}" for rank in range(size)),
        device=device,
        library="gloo" if device == "cpu" else "nccl",
        off=tuple((name, "off") for name in off),
        asked=asked,
        deterministic=deterministic,
    ),
    st.integers(1, 9), st.integers(1, 3), st.sampled_from(["cpu", "cuda", "hip"]),
    st.sets(st.sampled_from(WORKSPACES)), st.sampled_from(["auto", *WORKSPACES]), st.booleans(),
)  # fmt: skip
ANY_REQUEST = st.builds(
    Request, nbytes=st.integers(0, 1 << 28), dtype=st.sampled_from(SUMMABLE),
    order=st.sampled_from(["ranks", "tree", "any"]), order_asked=st.booleans(),
    capturing=st.booleans(),
)  # fmt: skip


@given(ANY_FACTS, ANY_REQUEST)
def test_what_holds_of_every_plan(facts: GroupFacts, request: Request) -> None:
    """An asked order is kept, in-node backends stay in a node, and nobody is chosen and declined."""
    if facts.device == "cpu":
        request = replace(request, capturing=False)
    chosen = plan(facts, request)
    asked = (request.order_asked or facts.deterministic) and request.order != "any"
    if asked and request.dtype not in INTEGERS:
        assert chosen.order == request.order
    if chosen.backend in WORKSPACES:
        assert facts.in_one_node and facts.refusal(chosen.backend) is None
        assert chosen.backend in makeable(facts) or request.dtype not in KERNEL_DTYPES
    assert chosen.why_not(chosen.backend) is None


def test_plans_are_equal_for_equal_input() -> None:
    """The plan is a function of facts and request alone."""
    assert plan(FOUR, BF16) == plan(replace(FOUR), replace(BF16))


def test_wishes_come_from_arguments_then_variables() -> None:
    """An argument outweighs its variable; both count as asked, a default does not."""
    environ = {"TWINRUN_ALL_REDUCE_ORDER": "tree"}
    assert read_wishes(None, None, None, {}).order_asked is False
    assert read_wishes(None, None, None, environ).order == "tree"
    assert read_wishes("any", None, None, environ).order == "any"
    assert read_wishes(None, None, None, environ).order_asked is True


def test_wishes_that_cannot_be() -> None:
    """Unknown words and pairs that conflict are refused before any rank is met."""
    with pytest.raises(UsageError, match="'sum' is unknown"):
        read_wishes("sum", None, None, {})
    with pytest.raises(LaunchError, match="--order any"):
        read_wishes("any", None, True, {})


def test_who_switched_a_backend_off_is_said() -> None:
    """A switch that a variable turns off names the variable and where it was set."""
    off = dict(read_wishes(None, None, None, {"TWINRUN_IPC_ALL_REDUCE": "0"}).off)
    assert off == {"ipc": "TWINRUN_IPC_ALL_REDUCE = 0   environment"}


def test_the_chooser_needs_no_torch() -> None:
    """doctor and --dry-run stay instant: plan and wishes import no torch."""
    code = (
        "import sys, twinrun.collectives.plan, twinrun.collectives.wishes;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
