"""The exchange between two jobs: pairing by point, resharding, staging, and ends without hanging."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from graft_jobs import Jobs, run_jobs

from twinrun.errors import PeerError
from twinrun.grafting.exchange import Exchange
from twinrun.grafting.giving import Parcel
from twinrun.grafting.jobs import free_port
from twinrun.grafting.point import Holding, Point, Rank
from twinrun.grafting.receiving import Taken
from twinrun.grafting.settings import Settings
from twinrun.grafting.taking import PointFailed

pytestmark = pytest.mark.ranks


def make(role: str, rank: int, world: int, address: str, **more: Any) -> Exchange:
    settings = Settings(
        **{
            "role": role,
            "address": address,
            "b2t": "*",
            "timeout_s": 30.0,
            "meeting_timeout_s": 30.0,
            **more,
        }
    )
    return Exchange(settings, Rank(role, rank), world)


def hold(
    name: str, x: torch.Tensor, dims: str = "", kind: str = "activation", **mesh: tuple[int, int]
) -> Holding:
    axes = tuple((axis, at, size) for axis, (at, size) in mesh.items())
    return Holding(name, dims, axes, tuple(x.shape), str(x.dtype)[6:], kind)


def give(
    ex: Exchange, step: int, name: str, x: torch.Tensor, *, occurrence: int = 0, **layout: Any
) -> None:
    point = Point(step, name, occurrence)
    ex.give(point, hold(name, x, **layout), lambda number: Parcel(point, number, x))


def take(
    ex: Exchange, step: int, name: str, x: torch.Tensor, *, occurrence: int = 0, **layout: Any
) -> Taken:
    return ex.take(Point(step, name, occurrence), hold(name, x, **layout))


def tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return made.to(dtype)


def swapped(role: str, rank: int, world: int, **options: Any) -> bool:
    ex = make(role, rank, world, **options)
    names = ["p", "q", "r"]
    big = tensor(1_500_000)  # larger than the ring, so that the sender has to stage
    for step in range(2):
        if role == "baseline":
            for at, name in enumerate(names):
                give(ex, step, name, big + at)
        else:
            for at, name in reversed(list(enumerate(names))):
                assert torch.equal(take(ex, step, name, big).tensor, big + at)
    ex.close()
    return ex.failure is None


@pytest.mark.parametrize("hosts", ["one", "two"])
def test_swapped_orders_pair_by_point(hosts: str) -> None:
    """Points pair by (step, name, occurrence), whatever the two orders, over rings and over TCP."""
    assert all(run_jobs(swapped if hosts == "one" else over_tcp).values())


def over_tcp(role: str, rank: int, world: int, **options: Any) -> bool:
    import twinrun.grafting.endpoint as endpoint

    endpoint.host_identity = lambda: f"{role}{rank}"
    return swapped(role, rank, world, **options)


def resharded(role: str, rank: int, world: int, **options: Any) -> bool:
    """Rows over tp on one side, columns over tp on the other, and a pending sum."""
    ex = make(role, rank, world, **options)
    for step in range(3):
        whole = tensor(24, 40, seed=step)
        if role == "baseline":
            give(ex, step, "rows", whole.chunk(world, 0)[rank], dims="t[tp] h", tp=(rank, world))
            give(ex, step, "cols", whole.chunk(world, 1)[rank], dims="t h[tp]", tp=(rank, world))
            part = whole * (rank + 1) / sum(range(1, world + 1))
            give(ex, step, "sums", part, dims="t h[tp:partial]", tp=(rank, world))
        else:
            want = whole.chunk(world, 1)[rank]
            mine = {"dims": "t h[tp]", "tp": (rank, world)}
            for name in ("rows", "cols"):
                assert torch.equal(take(ex, step, name, want, **mine).tensor, want)
            assert torch.allclose(
                take(ex, step, "sums", whole, dims="t h").tensor, whole, atol=1e-6
            )
    ex.close()
    return ex.failure is None


@pytest.mark.parametrize(("baseline", "target"), [(4, 2), (2, 4), (1, 2), (2, 1)])
def test_unequal_layouts_are_resharded(baseline: int, target: int) -> None:
    """Every receiver gets exactly its boxes, also where a sum is pending on the sending side."""
    assert all(run_jobs(resharded, baseline, target).values())


def inferred(role: str, rank: int, world: int, **options: Any) -> list[str]:
    """No layout is stated: whole values and shards, equal copies, and addends that look like copies."""
    ex = make(role, rank, world, **options)
    whole = tensor(6, 8)
    told = []
    for name in ("split", "copies", "sums"):
        mesh = {"tp": (rank, world)} if world > 1 else {}
        x = whole.chunk(world, 1)[rank].contiguous() if name == "split" else whole
        if role == "baseline":
            give(ex, 0, name, x + rank if name == "sums" else x, **mesh)
            continue
        try:
            taken = take(ex, 0, name, x, **mesh)
            assert torch.equal(taken.tensor, x)
            told.append(taken.note)
        except PointFailed as error:
            told.append(str(error))
    ex.close()
    assert ex.failure is None
    return told


@pytest.mark.parametrize(("baseline", "target"), [(1, 2), (2, 1)])
def test_layouts_are_inferred_by_shape_only_where_one_fits(baseline: int, target: int) -> None:
    """A split and equal copies come through with a note; copies that are none fail alone."""
    told = run_jobs(inferred, baseline, target)["target", 0]
    assert all("inferred" in note for note in told[:2])
    if baseline == 2:
        assert "rank 1 holds other bits" in told[2] and ":partial]" in told[2]


def pipeline(role: str, rank: int, world: int, **options: Any) -> bool:
    """Each stage of two holds its own layer; the other job has one rank with both."""
    ex = make(role, rank, world, **options)
    x = tensor(8, 8)
    names = ["layer0", "layer1"]
    held = names if world == 1 else [names[rank]]
    for step in range(3):
        for name in held:
            at = names.index(name)
            if role == "baseline":
                give(ex, step, name, x + at + step)
            else:
                assert torch.equal(take(ex, step, name, x).tensor, x + at + step)
    ex.close()
    return ex.failure is None


@pytest.mark.parametrize(("baseline", "target"), [(1, 2), (2, 1), (2, 2)])
def test_only_ranks_that_hold_a_point_take_part(baseline: int, target: int) -> None:
    """A point of one pipeline stage is exchanged without the other stages."""
    assert all(run_jobs(pipeline, baseline, target).values())


def uneven(role: str, rank: int, world: int, **options: Any) -> bool:
    ex = make(role, rank, world, **options)
    whole = tensor(7, 6, dtype=torch.bfloat16)
    if role == "baseline":
        give(ex, 0, "x", whole)
    else:
        want = whole.tensor_split(world)[rank].float()
        taken = take(ex, 0, "x", want, dims="t[tp] h", tp=(rank, world))
        assert torch.equal(taken.tensor, want)
        assert "cast from bfloat16 to float32" in taken.note
    ex.close()
    return ex.failure is None


def test_uneven_shards_and_casts() -> None:
    """Shards of unequal size are served; a difference of dtype is cast with a note."""
    assert all(run_jobs(uneven, 1, 2).values())


def shapes_change(role: str, rank: int, world: int, **options: Any) -> bool:
    ex = make(role, rank, world, **options)
    for step, length in enumerate([16, 1, 1, 16, 1, 0, 3]):
        x = tensor(length, 4, seed=step)
        if role == "baseline":
            give(ex, step, "x", x)
            give(ex, step, "x", x + 1, occurrence=1)
        else:
            assert torch.equal(take(ex, step, "x", x).tensor, x)
            assert torch.equal(take(ex, step, "x", x, occurrence=1).tensor, x + 1)
    ex.close()
    return ex.failure is None


def test_shapes_may_change_from_step_to_step() -> None:
    """A prefill and decodes of other lengths, and an empty tensor, go over the same name."""
    assert all(run_jobs(shapes_change).values())


def both_ways(role: str, rank: int, world: int, **options: Any) -> bool:
    ex = make(role, rank, world, **options)
    x = tensor(1_000_000)
    for step in range(3):
        mine, theirs = ("b", "t") if role == "baseline" else ("t", "b")
        give(ex, step, mine, x + step)
        assert torch.equal(take(ex, step, theirs, x).tensor, x + step)
    ex.close()
    return ex.failure is None


def test_both_directions_at_once() -> None:
    """Two ranks that send large tensors to each other at the same time do not wait for each other."""
    assert all(run_jobs(both_ways).values())


def one_short(role: str, rank: int, world: int, **options: Any) -> str:
    ex = make(role, rank, world, **options)
    x = tensor(4)
    told = ""
    for step in range(3):
        if role == "baseline":
            if step != 1:
                give(ex, step, "x", x + step)
            give(ex, step, "y", x + step)
        else:
            try:
                assert torch.equal(take(ex, step, "x", x).tensor, x + step)
            except PointFailed as error:
                told = str(error)
            assert torch.equal(take(ex, step, "y", x).tensor, x + step)
    ex.close()
    return told if role == "target" else ""


def test_a_call_that_one_side_lacks_fails_alone() -> None:
    """A point that the sender went past fails at once, and the points after it pair rightly."""
    told = run_jobs(one_short)["target", 0]
    assert "step 1  x" in told and "without holding it" in told


def unequal_steps(role: str, rank: int, world: int, **options: Any) -> list[str]:
    ex = make(role, rank, world, **options)
    x, told = tensor(4), []
    for step in range(2 if role == "baseline" else 3):
        for name in ("x", "mine") if role == "baseline" else ("x", "nobodys"):
            if role == "baseline":
                give(ex, step, name, x + step)
                continue
            try:
                assert torch.equal(take(ex, step, name, x).tensor, x + step)
            except PointFailed as error:
                told.append(str(error).splitlines()[0])
    ex.close()
    assert ex.failure is None
    return told


def test_unequal_steps_and_names_of_one_side_fail_alone() -> None:
    """A step or a name that the other job never has is told; what nobody takes holds nobody up."""
    told = run_jobs(unequal_steps)["target", 0]
    assert [text.split(":")[0] for text in told] == [
        "step 0  nobodys", "step 1  nobodys", "step 2  x", "step 2  nobodys"
    ]  # fmt: skip


def evicted(
    role: str, rank: int, world: int, dropped: Path, points: list[tuple[int, str]], **options: Any
) -> list[str]:
    import twinrun.grafting.dispatch as dispatch

    dispatch._EVICT_S = 0.2
    begins = rank == 1 and dropped.name == "met"
    if begins:
        ex = make(role, rank, world, **options, buffer_bytes=1 << 20)
        ex.begin(0)
    while rank == 1 and not dropped.exists():
        time.sleep(0.01)
    if not begins:
        ex = make(role, rank, world, **options, buffer_bytes=1 << 20)
    x, told = tensor(180_000), []
    for at, (step, name) in enumerate(points):
        if role == "baseline":
            give(ex, step, name, x + at)
            continue
        try:
            assert torch.equal(take(ex, step, name, x).tensor, x + at)
            told.append("taken")
        except PointFailed as error:
            told.append(str(error))
    if role == "baseline":
        dropped.touch()
    ex.close()
    assert ex.failure is None
    return told


@pytest.mark.parametrize("came", ["met", "later"])
@pytest.mark.parametrize("points", [[(0, "a"), (0, "b")], [(0, "a"), (1, "a")]])
def test_a_full_buffer_drops_what_somebody_has_taken_and_says_so(
    came: str, points: list[tuple[int, str]], tmp_path: Path
) -> None:
    """A rank that comes too late for a kept value learns why; who took it, and later values, are as ever.

    Also where it joins the meeting only after the value was dropped.
    """
    told = run_jobs(evicted, 1, 2, dropped=tmp_path / came, points=points)
    assert told["target", 0] == ["taken", "taken"]
    dropped, kept = told["target", 1]
    assert "dropped to make room" in dropped and "--graft-buffer" in dropped and kept == "taken"


def lent(role: str, rank: int, world: int, **options: Any) -> list[bool]:
    from twinrun.grafting.roster import Roster

    Roster._crowded = lambda self: True  # type: ignore[method-assign]
    ex = make(role, rank, world, **options)
    own = tensor(512, 1024 // world, seed=rank)
    right = []
    for step in range(6):
        if role == "target" and step % 3 == 2:
            time.sleep(0.3)  # so long that the sender takes back what it lent, and goes on
        if role == "baseline":
            own.fill_(step + rank)
            give(ex, step, "x", own, dims="a b[tp]", tp=(rank, world))
            own.fill_(-1.0)
            continue
        taken = take(ex, step, "x", own, dims="a b[tp]", tp=(rank, world)).tensor
        assert taken is not None
        columns = torch.arange(1024).chunk(world)[rank]
        expected = step + torch.div(columns, 256, rounding_mode="floor").float()
        right.append(torch.equal(taken, expected.expand(512, -1)))
    ex.close()
    assert ex.failure is None
    return right


@pytest.mark.parametrize("target", [1, 2])
def test_lent_values_are_those_of_the_moment(target: int) -> None:
    """Where cores are scarce long runs are lent; a program that writes into its tensor next changes nothing."""
    told = run_jobs(lent, 4, target)
    assert all(told["target", rank] == [True] * 6 for rank in range(target))


def never_comes(role: str, rank: int, world: int, **options: Any) -> str:
    ex = make(role, rank, world, **options, timeout_s=2.0)
    x = tensor(4)
    if role == "baseline":
        give(ex, 0, "x", x)
        time.sleep(6)
        ex.close(drain=False)
        return ""
    take(ex, 0, "x", x)
    with pytest.raises(PeerError) as caught:
        take(ex, 0, "other", x)
    ex.close()
    return str(caught.value)


def test_a_point_that_never_comes_is_named_with_both_last_points() -> None:
    """After the timeout the waiting side stops with the point and both sides' last points."""
    told = run_jobs(never_comes)["target", 0]
    assert "other was waited for 2 s" in told
    assert "here: step 0  other" in told and "baseline rank 0: step 0  x" in told


def victim(role: str, rank: int, world: int, **options: Any) -> str:
    ex = make(role, rank, world, **options)
    x = tensor(4)
    if role == "baseline":
        give(ex, 0, "x", x)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    take(ex, 0, "x", x)
    with pytest.raises(PeerError) as caught:
        take(ex, 1, "x", x)
    ex.close()
    return str(caught.value)


def test_a_killed_peer_ends_the_wait_with_its_name() -> None:
    """The survivor learns of a kill -9 at once, long before the timeout."""
    jobs = Jobs(victim, 1, 1)
    told = jobs.results(killed=(("baseline", 0),))["target", 0]
    assert "baseline rank 0 died" in told and "its last point: step 0  x" in told


def alone(role: str, rank: int, world: int, **options: Any) -> str:
    ex = make(role, rank, world, **options, meeting_timeout_s=2.0, target_ranks=1, baseline_ranks=2)
    with pytest.raises(PeerError) as caught:
        take(ex, 0, "x", tensor(4))
    ex.close()
    return str(caught.value)


def test_missing_ranks_are_named() -> None:
    """Who has not come to the meeting is said by role and rank."""
    told = run_jobs(alone, 0, 1)["target", 0]
    assert "baseline ranks 0, 1 of 2 have not come" in told


def refused(
    role: str, rank: int, world: int, settings: dict[str, dict[str, Any]], **options: Any
) -> str:
    more = settings[role]
    ex = make(more.pop("role", role), rank, world, **{**options, **more})
    end = time.monotonic() + 6
    while ex.failure is None and time.monotonic() < end:
        time.sleep(0.02)
    ex.close()
    return str(ex.failure)


@pytest.mark.parametrize(
    ("baseline", "target", "words"),
    [
        ({"b2t": "name == 'a'"}, {"b2t": "name == 'b'"}, ["\"name == 'a'\"", "\"name == 'b'\""]),
        ({"role": "target"}, {}, ["two processes claim to be target rank 0"]),
        ({"target_ranks": 3}, {}, ["the target has 1 ranks, but 3 were announced"]),
        ({"token": "one"}, {"token": "two"}, ["has another token"]),
        ({"layouts": "one.json"}, {}, ["layouts: ", "1 name, sha256 "]),
    ],
)
def test_jobs_that_do_not_fit_are_refused(
    baseline: dict[str, Any],
    target: dict[str, Any],
    words: list[str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other filters, one role twice, another number of ranks, token or layout file: refused with both texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.json").write_text('{"target": {"*": "t h"}}')
    told = run_jobs(refused, settings={"baseline": baseline, "target": target})
    for word in words:
        assert any(word in text for text in told.values()), told


def on_a_foreign_store(role: str, rank: int, world: int, **options: Any) -> str:
    ex = make(role, rank, world, **options)
    while ex.failure is None:
        time.sleep(0.02)
    ex.close()
    return str(ex.failure)


def test_a_port_of_another_program_is_refused() -> None:
    """A store that is not a graft's, or no store at all, is told apart from a late partner."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = Jobs(on_a_foreign_store, 0, 1, address=f"127.0.0.1:{store.port}").results()
    assert "is in use, and not by a Twinrun graft" in told["target", 0]


def test_nothing_is_left_in_the_file_system(tmp_path: Any) -> None:
    """Rings and sockets have no names: a killed job leaves nothing behind."""
    before = set(os.listdir("/dev/shm")) | {p for p in os.listdir("/tmp") if "twinrun-graft" in p}
    jobs = Jobs(victim, 1, 1, address=f"127.0.0.1:{free_port()}")
    jobs.results(killed=(("baseline", 0),))
    after = set(os.listdir("/dev/shm")) | {p for p in os.listdir("/tmp") if "twinrun-graft" in p}
    assert {name for name in after - before if "twinrun" in name} == set()
