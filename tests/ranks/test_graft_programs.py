"""Grafts inside programs: tr.graft, dumps, boundaries, parameters, gradients, transforms, captures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from graft_jobs import run_jobs

import twinrun as tr
from twinrun.errors import TwinrunError
from twinrun.grafting import joining
from twinrun.grafting.settings import Settings
from twinrun.grafting.transform import GraftContext

pytestmark = pytest.mark.ranks


def begin(role: str, rank: int, world: int, out: Path | None = None, **options: Any) -> None:
    """What the environment of one rank under ``twinrun run`` or ``twinrun graft`` makes happen."""
    settings = Settings(**{"role": role, "timeout_s": 30.0, "meeting_timeout_s": 60.0, **options})
    os.environ.update(settings.to_environment())
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(world)})
    if out is None:
        return
    from twinrun.recorder.joining import join

    os.environ["TWINRUN_OUT"] = str(out / role)
    assert join()


def end() -> dict[str, Any]:
    """Leave the graft; what the journal counted."""
    session = joining._session
    assert session is not None
    journal = session.journal
    joining._leave()
    return {
        "sent": journal.sent,
        "received": journal.received,
        "failed": journal.failed,
        "transforms": journal.transforms_failed,
        "ended": session.ended,
        "reasons": journal.reasons,
    }


def runs(tmp_path: Path, taps: str = "none", **options: Any) -> Path:
    from twinrun.recorder.options import Options
    from twinrun.recorder.rundir import create_run

    for role in ("baseline", "target"):
        create_run(
            tmp_path / "runs" / role, command=["test"], options=Options(taps=taps, **options)
        )
    return tmp_path / "runs"


def value(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (3, 5)), generator=torch.Generator().manual_seed(seed))


# --- tr.graft ------------------------------------------------------------------------------


def in_code(role: str, rank: int, world: int, **options: Any) -> dict[str, Any]:
    begin(role, rank, world, **options, b2t="name ~ 'x*'", t2b="name == 'back'")
    own = 10 if role == "baseline" else 20
    for step in range(3):
        x = value(own + step).requires_grad_()
        kept = x.detach().clone()
        y = tr.graft("x", x * 2)
        through = tr.graft("x2", x * 2, gradient="through")
        back = tr.graft("back", x.detach())
        (y.sum() + through.sum()).backward()
        if role == "target":
            assert torch.equal(y, value(10 + step) * 2) and torch.equal(
                through, value(10 + step) * 2
            )
            assert y.is_leaf and y.requires_grad and torch.equal(x.grad, torch.full_like(x, 2.0))
            assert back is not None and torch.equal(back, kept)
        else:
            assert torch.equal(back, value(20 + step)) and torch.equal(y, x * 2)
            assert torch.equal(x.grad, torch.full_like(x, 4.0))
        assert torch.equal(x, kept)
        tr.step()
    return end()


def test_graft_in_code_returns_the_other_runs_value() -> None:
    """Both directions in one program; leaf and through; the original is not changed."""
    told = run_jobs(in_code)
    assert told["target", 0] == {
        "sent": 3,
        "received": 6,
        "failed": 0,
        "transforms": 0,
        "ended": "",
        "reasons": [],
    }
    assert told["baseline", 0]["received"] == 3


def overlapping(role: str, rank: int, world: int, **options: Any) -> str:
    begin(role, rank, world, **options, b2t="name ~ 'x*'", t2b="name == 'x1'", strict=True)
    with pytest.raises(TwinrunError) as caught:
        tr.graft("x1", value(0))
    end()
    return str(caught.value)


def test_a_point_that_both_filters_take_is_refused_with_both() -> None:
    """b2t and t2b may not overlap: the refusal names both texts."""
    for text in run_jobs(overlapping).values():
        assert "name ~ 'x*'" in text and "name == 'x1'" in text


# --- transforms ----------------------------------------------------------------------------


def stitch(context: GraftContext) -> torch.Tensor:
    """Columns of all senders side by side, scaled by what each sent beside them."""
    assert [layout.rank for layout in context.layouts] == list(range(context.baseline_ranks))
    parts = [x * extra["scale"] for x, extra in zip(context.received, context.extras, strict=True)]
    whole = torch.cat(parts, dim=1)
    width = whole.shape[1] // context.target_ranks
    return whole[:, context.rank * width : (context.rank + 1) * width]


def spoil_and_raise(context: GraftContext) -> torch.Tensor:
    context.target.zero_()
    raise ValueError("not today")


def wrong_shape(context: GraftContext) -> torch.Tensor:
    return context.received[0][:1]


def length(context: GraftContext) -> Any:
    return sum(len(words) for words in context.received)


def transformed(
    role: str, rank: int, world: int, other_world: int, **options: Any
) -> dict[str, Any]:
    here = "test_graft_programs"
    begin(
        role, rank, world, **options, b2t="*",
        transforms=(f"good={here}.stitch", f"bad1={here}.spoil_and_raise", f"bad2={here}.wrong_shape", f"words={here}.length"),
    )  # fmt: skip
    whole = value(1, 4, 8)
    mine = whole.chunk(world, 1)[rank].contiguous()
    if role == "baseline":
        extras = {"scale": 2.0, "deep": [None, True, b"\0", float("inf"), 1 << 80, torch.arange(3)]}
        for name in ("good", "bad1", "bad2"):
            tr.graft(name, mine, extras=extras)
        tr.graft("words", ["a", "b", "c"])
    else:
        kept = mine.clone()
        assert torch.equal(tr.graft("good", mine), whole.chunk(world, 1)[rank] * 2)
        for name in ("bad1", "bad2"):
            assert tr.graft(name, mine) is mine and torch.equal(mine, kept)
        assert tr.graft("words", 0) == 3 * other_world
    return end()


@pytest.mark.parametrize(("baseline", "target"), [(4, 2), (2, 4)])
def test_transforms_take_all_senders_and_failing_ones_are_contained(
    baseline: int, target: int
) -> None:
    """Whole values with extras in rank order; one that raises or returns a wrong shape changes nothing."""
    told = run_jobs(transformed, baseline, target, other_world=baseline)
    for rank in range(target):
        assert told["target", rank]["failed"] == 2 and told["target", rank]["transforms"] == 2
        assert told["target", rank]["received"] == 2


def strictly(role: str, rank: int, world: int, **options: Any) -> str:
    begin(
        role,
        rank,
        world,
        **options,
        b2t="*",
        strict=True,
        transforms=("test_graft_programs.spoil_and_raise",),
    )
    told = ""
    if role == "baseline":
        tr.graft("x", value(0))
    else:
        with pytest.raises(TwinrunError) as caught:
            tr.graft("x", value(1))
        told = str(caught.value)
    end()
    return told


def test_strict_stops_at_the_first_failure() -> None:
    """With strict the failing transform's error reaches the program."""
    assert "raised ValueError: not today" in run_jobs(strictly)["target", 0]


def without_layout(role: str, rank: int, world: int, **options: Any) -> dict[str, Any]:
    begin(role, rank, world, **options, b2t="*")
    x = value(rank, 4, 4 if world == 2 else 7)
    assert tr.graft("x", x) is x
    return end()


def test_without_a_layout_the_point_is_left_alone_and_counted() -> None:
    """Two senders and one receiver of other shapes: the message shows what to add."""
    told = run_jobs(without_layout, 2, 1)
    assert told["target", 0]["failed"] == 1 and told["target", 0]["ended"] == ""
    assert "--graft-dims 'x=" in told["target", 0]["reasons"][0]


def half_taken(role: str, rank: int, world: int, out: Path, **options: Any) -> dict[str, Any]:
    begin(role, rank, world, **options, b2t="*", journal=str(out / "graft"))
    x = value(0, 2, 4) if rank == 0 else value(0, 2, 3)
    assert (tr.graft("x", x) is x) is (role == "baseline" or rank == 1)
    return end()


def test_a_point_that_some_took_and_others_did_not_is_mixed(tmp_path: Path) -> None:
    """The account over all processes names the point; a contained failure makes the exit code 3."""
    from twinrun.grafting.account import read_account

    run_jobs(half_taken, 1, 2, out=tmp_path)
    account = read_account([tmp_path])
    assert account.mixed == ["step 0  x"] and account.contained
    assert (account.processes, account.received, account.failed) == (3, 1, 1)


def cast(role: str, rank: int, world: int, **options: Any) -> dict[str, Any]:
    begin(role, rank, world, **options, b2t="*")
    dtypes = (torch.float8_e4m3fn, torch.int64, torch.bool, torch.complex64, torch.bfloat16)
    for dtype in dtypes:
        x = (value(5) * 4).to(dtype)
        mine = x if role == "baseline" else torch.zeros_like(x)
        assert torch.equal(tr.graft(str(dtype), mine).view(torch.uint8), x.view(torch.uint8))
    empty = torch.empty(0, 3)
    assert tr.graft("empty", empty).shape == (0, 3)
    assert tr.graft("scalar", torch.tensor(7.0 if role == "baseline" else 8.0)).item() == 7.0
    strided = value(6, 4, 6).t() if role == "baseline" else torch.zeros(4, 6).t()
    assert torch.equal(tr.graft("strided", strided), value(6, 4, 6).t())
    wrong = torch.zeros(3, dtype=torch.float32 if role == "baseline" else torch.int32)
    assert tr.graft("wrong", wrong) is wrong
    tr.graft("text", "no tensor" if role == "baseline" else "here")
    return end()


def test_every_dtype_and_shape_goes_through_or_is_refused() -> None:
    """float8, integers, bool, complex, 0-dim, empty and strided tensors; float for integer and plain text refused."""
    told = run_jobs(cast)["target", 0]
    assert told["received"] == 8 and told["failed"] == 2 and told["ended"] == ""
    assert "cannot stand in for int32" in told["reasons"][0]
    assert "needs a --transform" in told["reasons"][1]


# --- dumps and boundaries ------------------------------------------------------------------


def dumping(role: str, rank: int, world: int, out: Path, **options: Any) -> dict[str, Any]:
    begin(role, rank, world, out, **options, b2t="*")
    x = value(3) if role == "baseline" else value(4)
    needs = x.clone().requires_grad_()
    view = x[:1].expand(7, 5)
    tr.dump("x", x, dims="a b", layer=1)
    tr.dump("needs", needs)
    tr.dump("view", view)
    assert torch.equal(x, value(3))
    assert torch.equal(needs, value(3 if role == "baseline" else 4))
    joining._seam.recorder.close()
    return end()


def test_dump_overwrites_in_place_and_refuses_what_it_may_not(tmp_path: Path) -> None:
    """The record holds the grafted value and says so; a tensor with grad or an expanded view is refused."""
    out = runs(tmp_path)
    told = run_jobs(dumping, out=out)
    assert told["target", 0]["received"] == 1 and told["target", 0]["failed"] == 2
    needs, view = told["target", 0]["reasons"]
    assert "use x = tr.graft('needs', x)" in needs and "expanded view" in view
    from twinrun.recorder.reader import open_capture

    capture = open_capture(str(out / "target"))
    (record,) = [r for r in capture.records if r.name == "x"]
    assert record.tags["grafted"] == "b2t" and torch.equal(capture.tensor(record), value(3))
    lines = [
        json.loads(t)
        for f in (out / "target" / "graft").iterdir()
        for t in f.read_text().splitlines()
    ]
    assert [line["event"] for line in lines] == ["received", "failed", "failed", "summary"]


class Net(torch.nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a = torch.nn.Linear(4, 6)
        self.b = torch.nn.Linear(6, 2, bias=False)

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> dict[str, Any]:
        hidden = self.a(x) * scale
        return {"pair": (hidden, self.b(hidden)), "none": None}


class Checkpointed(torch.nn.Module):
    """Two blocks whose forwards are run again in the backward pass, in torch's two ways, or not."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def block(x: torch.Tensor) -> torch.Tensor:
            return (self.second(torch.tanh(self.first(x).add_(1))) ** 3).sin()

        if self.how == "plain":
            return block(x)
        from torch.utils.checkpoint import checkpoint

        y: torch.Tensor = checkpoint(block, x, use_reentrant=self.how == "reentrant")
        return y


def recomputed(role: str, rank: int, world: int, out: Path, how: str, **options: Any) -> Any:
    begin(role, rank, world, out, **options, b2t="name == 'first:output' and step < 2")
    told = []
    net = Checkpointed("plain" if role == "baseline" else how)
    for step in range(3):
        x = value(step if role == "baseline" else step + 7, 2, 4).requires_grad_()
        net.zero_grad()
        net(x).sum().backward()
        told.append([p.grad.tolist() for p in (*net.parameters(), x)])
        kept = joining._session._kept
        assert bool(kept._calls) is (role == "target" and step < 2 and how != "plain")
    return end() | {"gradients": told}


@pytest.mark.parametrize("how", ["plain", "reentrant", "hooks"])
def test_a_recomputed_forward_takes_what_the_first_one_took(tmp_path: Path, how: str) -> None:
    """Gradients under activation checkpointing are those without it, bit for bit; nothing is sent twice."""
    out = runs(tmp_path)
    target = run_jobs(recomputed, out=out, how=how)["target", 0]
    assert (target["received"], target["failed"], target["ended"]) == (2, 0, "")
    want = []
    for step in range(3):
        net, x = Checkpointed("plain"), value(step + 7, 2, 4).requires_grad_()
        other = net.first(value(step, 2, 4)).detach() if step < 2 else None
        if other is not None:
            net.first.register_forward_hook(lambda m, i, y, z=other: y + (z - y).detach())
        net(x).sum().backward()
        want.append([p.grad for p in (*net.parameters(), x)])
    for mine, right in zip(target["gradients"], want, strict=True):
        for a, b in zip(mine, right, strict=True):
            assert torch.allclose(torch.tensor(a), b, rtol=1e-5, atol=1e-6)


def recorded(role: str, rank: int, world: int, out: Path, **options: Any) -> dict[str, Any]:
    begin(role, rank, world, out, **options, b2t="name == 'a:output' or kind == 'parameter'")
    torch.manual_seed(0)
    net = Net(0 if role == "baseline" else 7)
    with torch.no_grad():
        net(value(0, 2, 4))
    joining._seam.recorder.close()
    return end()


def test_records_hold_what_was_grafted_and_say_so(tmp_path: Path) -> None:
    """A boundary's record carries the tag ``grafted``; parameters are recorded after their graft."""
    out = runs(tmp_path, taps="modules", parameters=True)
    run_jobs(recorded, out=out)
    from twinrun.recorder.reader import open_capture

    capture = open_capture(str(out / "target"))
    tags = {r.name: r.tags.get("grafted") for r in capture.records}
    assert tags["a:output"] == "b2t" and tags["b:output"] is tags["a:input.input"] is None
    held = {r.name: capture.tensor(r) for r in capture.records if r.kind == "parameter"}
    assert torch.equal(held["a.weight:parameter"], Net(0).a.weight)


def at_boundaries(role: str, rank: int, world: int, out: Path, **options: Any) -> dict[str, Any]:
    begin(role, rank, world, out, **options, b2t="name ~ 'b:*' and step != 1")
    net = Net(0)
    own = 1.0 if role == "baseline" else 3.0
    for step in range(3):
        x = value(step, 2, 4)
        hidden, y = net(x, scale=own)["pair"]
        y.sum().backward()
        right = net.b.weight @ net.a(x).T if step != 1 else None
        if right is not None:
            assert torch.allclose(y, right.T, atol=1e-6)
        assert net.a.weight.grad is not None
        assert torch.allclose(hidden, net.a(x) * own, atol=1e-6)
    return end()


def test_module_boundaries_are_grafted_with_no_change_in_the_program(tmp_path: Path) -> None:
    """Inputs and outputs inside dicts and tuples; a filter that looks at the step; gradients go through."""
    told = run_jobs(at_boundaries, out=runs(tmp_path))
    assert told["target", 0]["failed"] == 0 and told["target", 0]["received"] >= 4


def parameters(role: str, rank: int, world: int, out: Path, **options: Any) -> dict[str, Any]:
    begin(
        role, rank, world, out, **options, b2t="kind == 'parameter'",
        dims=("target:b.weight:parameter=o i[tp]",), mesh="" if world == 1 else "tp=2",
    )  # fmt: skip
    net = Net(0 if role == "baseline" else 7)
    if world == 2:
        net.b = torch.nn.Linear(3, 2, bias=False)
        net.forward = lambda x: net.b(net.a(x)[:, :3])  # type: ignore[method-assign]
    net(value(0, 2, 4))
    right = Net(0)
    assert torch.equal(net.a.weight, right.a.weight)
    want = right.b.weight if world == 1 else right.b.weight.chunk(2, 1)[rank]
    assert torch.equal(net.b.weight, want) and net.b.weight.requires_grad
    return end()


def test_parameters_are_copied_before_the_first_step_whatever_the_layout(tmp_path: Path) -> None:
    """The target starts from the baseline's weights: whole ones, and its own shard of a split one."""
    told = run_jobs(parameters, 1, 2, out=runs(tmp_path))
    assert all(told["target", rank]["received"] == 3 for rank in range(2))


def gradients(role: str, rank: int, world: int, out: Path, **options: Any) -> dict[str, Any]:
    begin(
        role,
        rank,
        world,
        out,
        **options,
        b2t="kind == 'gradient' and name in ('b:output:grad', 'a.weight:parameter.grad')",
    )
    net = Net(0)
    own = 1.0 if role == "baseline" else 5.0
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    _, y = net(value(0, 2, 4))["pair"]
    (y.sum() * own).backward()
    assert torch.allclose(
        net.b.weight.grad, Net(0).a(value(0, 2, 4)).sum(0).expand(2, 6), atol=1e-5
    )
    net.a.weight.grad.mul_(own)
    optimizer.step()
    right = Net(0)
    right(value(0, 2, 4))["pair"][1].sum().backward()
    assert torch.allclose(net.a.weight, right.a.weight - right.a.weight.grad, atol=1e-5)
    return end()


def test_gradients_are_grafted_like_activations(tmp_path: Path) -> None:
    """An activation's gradient as it passes, and a parameter's before the optimizer takes it."""
    told = run_jobs(gradients, out=runs(tmp_path))
    assert told["target", 0]["received"] == 2


# --- offline -------------------------------------------------------------------------------


def record(role: str, rank: int, world: int, out: Path, **options: Any) -> None:
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(world)})
    with tr.capture(out / "kept"):
        for step in range(3):
            whole = value(step, 4, 8)
            tr.dump("x", whole.chunk(world, 1)[rank], dims="t h[world]")
            tr.dump("only_here", whole)
            tr.step()


def replayed(role: str, rank: int, world: int, out: Path, **options: Any) -> dict[str, Any]:
    options.pop("address")
    begin(role, rank, world, **options, b2t="*", source=str(out / "kept"), mesh=f"world={world}")
    for step in range(4):
        whole = value(step, 4, 8)
        mine = torch.zeros(4, 8 // world)
        got = tr.graft("x", mine, dims="t h[world]")
        if step < 3:
            assert torch.equal(got, whole.chunk(world, 1)[rank])
        else:
            assert got is mine
        tr.step()
    return end()


def test_a_capture_replays_as_the_baseline(tmp_path: Path) -> None:
    """Four captured ranks feed two, resharded; a step that the capture lacks fails with its range."""
    run_jobs(record, 0, 4, out=tmp_path)
    told = run_jobs(replayed, 0, 2, out=tmp_path)
    assert told["target", 1]["received"] == 3 and told["target", 1]["failed"] == 1
    assert "it is there in steps 0 to 2" in told["target", 1]["reasons"][0]


def record_without_mesh(role: str, rank: int, world: int, out: Path, **options: Any) -> None:
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(world)})
    with tr.capture(out / "kept"):
        tr.dump("x", value(0, 4, 8).chunk(world, 1)[rank], dims="t h[tp]")
        tr.dump("only_here", value(0, 4, 8))


def replayed_badly(role: str, rank: int, world: int, out: Path, **options: Any) -> dict[str, Any]:
    options.pop("address")
    announced = options.pop("announced")
    begin(role, rank, world, **options, b2t="*", source=str(out / "kept"), baseline_ranks=announced)
    mine = torch.zeros(4, 8)
    for name, dims in (("x", "t h[tp]"), ("nobody", None), ("only_here", None)):
        got = tr.graft(name, mine, dims=dims)
        assert got is mine or name == "only_here"
    return end()


def test_what_a_capture_cannot_give_fails_alone(tmp_path: Path) -> None:
    """A mesh that nobody recorded, an unknown name: told with what to do; equal copies are taken."""
    run_jobs(record_without_mesh, 0, 2, out=tmp_path)
    told = run_jobs(replayed_badly, 0, 1, out=tmp_path, announced=None)["target", 0]
    mesh, name = told["reasons"]
    assert "does not say where it stands on axis 'tp'" in mesh and "--mesh tp=N" in mesh
    assert "does not hold it" in name and told["received"] == 1
    wrong = run_jobs(replayed_badly, 0, 1, out=tmp_path, announced=3)["target", 0]
    assert "has 2 ranks, but 3 were announced" in wrong["ended"] and wrong["received"] == 0


def from_a_file(role: str, rank: int, world: int, out: Path, **options: Any) -> dict[str, Any]:
    begin(
        role, rank, world, **options, b2t="*", layouts=str(out / "layouts.json"),
        mesh="tp=2" if world == 2 else "",
    )  # fmt: skip
    whole = value(9, 6, 6)
    for name in ("rows", "square"):
        mine = whole.chunk(world, 0)[rank] if world == 2 else torch.zeros(6, 6)
        got = tr.graft(name, mine)
        if role == "target":
            assert torch.equal(got, whole)
    return end()


def test_layouts_come_from_a_file(tmp_path: Path) -> None:
    """What nothing annotates is resharded as the file says, for names and globs."""
    (tmp_path / "layouts.json").write_text('{"baseline": {"rows": "a[tp] b", "sq*": "a[tp] b"}}')
    told = run_jobs(from_a_file, 2, 1, out=tmp_path)["target", 0]
    assert (told["received"], told["failed"]) == (2, 0)
