"""Healed points, pending sums and invariants: what depends on more than one point or rank."""

from __future__ import annotations

import torch
from memory_run import MemoryRun

from twinrun import compare
from twinrun.comparison.result import Result

A = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))


def mlp(run: MemoryRun, experts: torch.Tensor, output: torch.Tensor, **given: object) -> None:
    """An mlp whose experts' output is fed to the mlp's own output."""
    run.add("mlp:input.x", A, begun=0, order=1)
    run.add("mlp.experts:output", experts, begun=2, order=3, **given)
    run.add("mlp:output", output, begun=0, order=5, parents=(1,))


def two(experts: torch.Tensor, output: torch.Tensor, **given: object) -> Result:
    baseline, target = MemoryRun(), MemoryRun()
    mlp(baseline, A, A)
    mlp(target, experts, output, **given)
    return compare(baseline, target)


def test_healed() -> None:
    """A difference whose consumer and enclosing module agree is healed, and no divergence."""
    result = two(A.flip(0), A)
    assert [row.verdict for row in result.rows] == ["equal", "healed", "equal"]
    assert result.first is None and result.exit_code == 0


def test_not_healed_when_the_consumer_differs() -> None:
    """A consumer that differs leaves both."""
    result = two(A.flip(0), A.flip(1))
    assert [row.verdict for row in result.rows] == ["equal", "differs", "differs"]


def test_not_healed_without_consumers() -> None:
    """A point that nothing is known to use, on either side, is never healed."""
    baseline, target = MemoryRun(), MemoryRun()
    for run, experts in ((baseline, A), (target, A.flip(0))):
        run.add("mlp.experts:output", experts, begun=2, order=3)
        run.add("mlp:output", A, begun=0, order=5)
    assert compare(baseline, target).rows[0].verdict == "differs"


def test_not_healed_with_unknown_consumers() -> None:
    """A later record of unknown makers may have used it."""
    baseline, target = MemoryRun(), MemoryRun()
    for run, experts in ((baseline, A), (target, A.flip(0))):
        mlp(run, experts, A)
        run.add("norm:output", A, begun=7, order=8, parents=(-1,))
    assert compare(baseline, target).rows[1].verdict == "differs"


def test_not_healed_when_changed_in_place() -> None:
    """A consumer that recorded another value than its producer's is no consumer of that value."""
    baseline, target = MemoryRun(), MemoryRun()
    for run, experts in ((baseline, A), (target, A.flip(0))):
        run.add("mlp:input.x", A, begun=0, order=1)
        run.add("mlp.experts:output", experts, begun=2, order=3)
        run.add("mlp.down:input.x", A, begun=3, order=4, sources=(1,))
        run.add("mlp.down:output", A, begun=3, order=5, parents=(1, 2))
        run.add("mlp:output", A, begun=0, order=6, parents=(3,))
    assert compare(baseline, target).rows[1].verdict == "differs"


def test_fading_faults_do_not_heal() -> None:
    """Undecided points are no agreement: a fault that fades along the way is still the first."""
    baseline, target = MemoryRun(), MemoryRun()
    for run, scale in ((baseline, 0.0), (target, 1.0)):
        for at, error in enumerate((1e-2, 1e-6, 0.0)):
            away = scale * error * torch.randn(4, 64, generator=torch.Generator().manual_seed(at))
            run.add(f"net.{at}:output", A + away, begun=2 * at + 1, order=2 * at + 2,
                    parents=(at - 1,) if at else ())  # fmt: skip
        run.add("net:output", A, begun=0, order=9, parents=(2,))
    assert [row.verdict for row in compare(baseline, target).rows][:2] == ["differs", "undecided"]


def sharded(
    run: MemoryRun, name: str, *parts: torch.Tensor, axis: str = "tp", **given: object
) -> None:
    for rank, part in enumerate(parts):
        run.add(name, part, rank=rank, mesh={axis: (rank, len(parts))}, **given)


def test_pending_sum_agrees_if_all_that_follows_does() -> None:
    """An inferred sum counts as agreement, marked inferred, when every later point agrees."""
    part = torch.randn_like(A)
    one, two = MemoryRun(), MemoryRun()
    one.add("mlp.down:output", A)
    one.add("mlp:output", A)
    sharded(two, "mlp.down:output", part, A - part)
    sharded(two, "mlp:output", A, A)
    result = compare(one, two)
    assert [row.verdict for row in result.rows] == ["healed", "equal"]
    assert "pending sum over tp" in result.rows[0].inferred and result.exit_code == 0
    alone_one, alone_two = MemoryRun(), MemoryRun()
    alone_one.add("mlp.down:output", A)
    sharded(alone_two, "mlp.down:output", part, A - part)
    assert compare(alone_one, alone_two).rows[0].verdict == "differs"


def test_inferred_shards_agree() -> None:
    """Shards whose layout follows from the other run's shape are assembled and marked inferred."""
    one, two = MemoryRun(), MemoryRun()
    one.add("q_proj:output", A)
    sharded(two, "q_proj:output", *(part.contiguous() for part in A.chunk(2, -1)))
    row = compare(one, two).rows[0]
    assert row.verdict == "equal" and row.target is not None and row.target.layout == "inferred"


def test_broken_replicas_come_first() -> None:
    """A replica that differs on one rank is an invariant, and its own difference is not hidden."""
    one, two = MemoryRun(), MemoryRun()
    one.add("norm:output", A)
    wrong = A.clone()
    wrong[1, 5] += 1
    sharded(two, "norm:output", A, wrong, dims="b h")
    result = compare(one, two)
    assert [(i.kind, i.side, i.ranks) for i in result.invariants] == [
        ("replicas", "target", (0, 1))
    ]
    assert "[1, 5]" in result.invariants[0].text and result.exit_code == 1
    assert result.rows[0].verdict == "differs"


def test_broken_replicas_by_the_other_runs_shape() -> None:
    """Without a layout, replicas are called broken where the other run's whole tensor shows them."""
    one, two = MemoryRun(), MemoryRun()
    one.add("norm:output", A)
    sharded(two, "norm:output", A, A * 3)
    result = compare(one, two)
    assert [i.kind for i in result.invariants] == ["replicas"]


def test_data_ranks_are_no_replicas() -> None:
    """Ranks of a data axis hold other samples; parameters on them must be equal."""
    one, two = MemoryRun(), MemoryRun()
    for run in (one, two):
        sharded(run, "layers.0:output", A, A * 2, axis="dp")
        sharded(run, "layers.0.weight:parameter", A, A * 2, axis="dp", kind="parameter", dims="o i")
    result = compare(one, two)
    assert {i.name for i in result.invariants} == {"layers.0.weight:parameter"}
    assert result.rows[0].verdict == "equal"


def test_silent_taps() -> None:
    """A module that gave no output on one rank, although what encloses it ran there, is told."""
    one = MemoryRun()
    for name in ("model.norm:output", "model:output"):
        sharded(one, name, A, A, dims="b h")
    one.records = [r for r in one.records if (r.name, r.rank) != ("model.norm:output", 1)]
    result = compare(one, one)
    assert [(i.kind, i.name, i.ranks) for i in result.invariants][:1] == [
        ("silent", "model.norm:output", (1,))
    ]


def branch(run: MemoryRun, value: torch.Tensor, stream: torch.Tensor) -> None:
    """A module that adds a branch to a residual stream and normalises the sum."""
    run.add("layers.0.mlp:output", value, begun=2, order=3)
    run.add("layers.0.norm:input.x", value, begun=4, order=4, sources=(0,))
    run.add("layers.0.norm:input.residual", stream, begun=4, order=5)
    total = (value + stream).to(value.dtype)
    scaled = total / total.float().pow(2).mean(-1, keepdim=True).sqrt().to(value.dtype)
    run.add("layers.0.norm:output", scaled, begun=4, order=6, parents=(0, 1, 2))
    run.add("layers.0:output", total, begun=0, order=7, parents=(0,))


def test_not_healed_where_it_could_not_be_seen() -> None:
    """A branch that is off by a tenth is not healed by a stream that is too large to show it."""
    small, stream = A.bfloat16(), (100 * A.flip(0)).bfloat16()
    baseline, target = MemoryRun(), MemoryRun()
    branch(baseline, small, stream)
    branch(target, (1.1 * A).bfloat16(), stream)
    result = compare(baseline, target)
    by_name = {row.name: row.verdict for row in result.rows}
    assert by_name["layers.0.norm:output"] in ("equal", "close")
    assert by_name["layers.0.mlp:output"] == "differs" and result.exit_code == 1


def test_a_gradient_that_nobody_sums_differs() -> None:
    """A replicated weight's gradient left unreduced: what the optimizer makes of it is recorded nowhere."""
    whole = torch.randn(16, generator=torch.Generator().manual_seed(0))
    part = torch.randn(16, generator=torch.Generator().manual_seed(1))
    one, two = MemoryRun(), MemoryRun()
    one.add("norm.weight:parameter.grad", whole, role="parameter")
    one.add("norm2.weight:parameter.grad", whole, role="parameter")
    for rank, held in enumerate((part, whole - part)):
        mesh = {"tp": (rank, 2)}
        two.add("norm.weight:parameter.grad", held, rank=rank, mesh=mesh, role="parameter")
        two.add("norm2.weight:parameter.grad", whole, rank=rank, mesh=mesh, role="parameter")
    result = compare(one, two)
    assert [row.verdict for row in result.rows] == ["differs", "equal"]
    assert result.rows[0].hint is not None and result.rows[0].hint.kind == "partial sum"
