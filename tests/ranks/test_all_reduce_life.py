"""How an ``AllReduce`` is made, refused and closed on several ranks."""

from __future__ import annotations

import gc
import logging
import os
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from world import run_ranks

from twinrun.collectives import probe
from twinrun.collectives.all_reduce import AllReduce
from twinrun.collectives.exchange import Exchange
from twinrun.errors import LaunchError, PeerError, UnavailableError, UsageError

pytestmark = pytest.mark.ranks


def _close_in_turn(rank: int, size: int) -> None:
    first, second = AllReduce(), AllReduce()
    x = torch.ones(70_000)
    assert first(x)[0] == size and second(x)[0] == size
    for ar in (first, second) if rank else (second, first):
        ar.close()
        ar.close()
        time.sleep(0.1 * rank)
    with pytest.raises(UsageError, match="closed"):
        first(x)
    third = AllReduce()
    assert third(x)[-1] == size
    del third
    gc.collect()  # no work in a destructor: nothing waits, nothing is printed


def test_ranks_close_in_different_orders() -> None:
    """close() waits for no peer, may be called twice, and calls after it are refused."""
    run_ranks(2, _close_in_turn)


def _no_cpu_half(rank: int, size: int) -> None:
    """Made and closed in turn, each rank at its own pace."""
    group = dist.new_group(backend="cuda:gloo")
    for turn in range(6):
        with AllReduce(group, device="cpu") as ar:
            assert ar(torch.ones(3))[0] == size
        time.sleep(0.05 * (rank + turn) % 0.11)


def test_groups_without_a_cpu_half_are_given_one_once() -> None:
    """Beside NCCL the ranks agree over a gloo group, which outlives every AllReduce of those ranks."""
    run_ranks(3, _no_cpu_half)


def _left_behind(rank: int, size: int) -> tuple[list[str], int]:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with AllReduce() as ar:
            ar(torch.ones(10))
    dist.barrier()
    return [p.name for p in Path("/dev/shm").glob("twinrun-*")], len(
        os.listdir("/proc/self/fd")
    ) - before


def test_nothing_is_left_behind() -> None:
    """No name stays in /dev/shm and no file stays open, however often one is made and closed."""
    for names, files in run_ranks(2, _left_behind):
        assert names == [] and files <= 2


def _peers(rank: int, size: int) -> list[str]:
    """The copy itself needs GPUs: here it is counted."""
    told = []

    def copy(exchange: Exchange, device: torch.device) -> str | None:
        told.append(str(device))
        return exchange.first_trouble("bad copy" if rank == 1 else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "_copy_and_check", copy)
        exchange = Exchange(dist.group.WORLD)
        for index in (0, 0, 1 if rank == 0 else 0, 0):
            assert probe.peer_access(exchange, torch.device("cuda", index)) == "rank 1: bad copy"
    return told


def test_peer_access_is_tested_once_for_ranks_and_devices() -> None:
    """A second AllReduce tests nothing, unless a rank of it has come with another device."""
    first, second = run_ranks(2, _peers)
    assert first == ["cuda:0", "cuda:1"] and second == ["cuda:0", "cuda:0"]


def _late(rank: int, size: int) -> str:
    ar = AllReduce(backend="shared_memory")
    x = torch.ones(4)
    ar(x)
    if rank == 1:
        time.sleep(4)
        return "late"
    with pytest.raises(PeerError) as caught:
        ar(x)
    with pytest.raises(PeerError, match="broke off"):
        ar(x)
    return str(caught.value)


def test_a_rank_that_never_arrives_is_named() -> None:
    """After the timeout the waiting rank says who is missing, at which size, instead of hanging."""
    told = run_ranks(2, _late, environ={"TWINRUN_ALL_REDUCE_TIMEOUT_S": "1"})[0]
    assert "rank 1 did not arrive at an all-reduce of 16 bytes" in told


def _differ(rank: int, size: int) -> str:
    with pytest.raises(PeerError) as caught:
        AllReduce()
    return str(caught.value)


def test_ranks_with_different_settings_are_named() -> None:
    """A setting that differs between ranks is refused on all of them, with both values."""
    for told in run_ranks(3, _set_and_differ):
        assert "rank 2 cannot agree with rank 0" in told and "tree" in told and "ranks" in told


def _set_and_differ(rank: int, size: int) -> str:
    os.environ["TWINRUN_ALL_REDUCE_ORDER"] = "tree" if rank == 2 else "ranks"
    return _differ(rank, size)


def _mismatch(rank: int, size: int) -> str:
    ar = AllReduce()
    with pytest.raises(PeerError) as caught:
        ar(torch.ones(3 + rank))
    return str(caught.value)


def test_checked_mode_names_a_rank_in_another_call() -> None:
    """TWINRUN_ALL_REDUCE_CHECK compares what the ranks are about to sum."""
    for told in run_ranks(2, _mismatch, environ={"TWINRUN_ALL_REDUCE_CHECK": "1"}):
        assert "rank 1 is in another all-reduce than rank 0" in told and "[4," in told


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.told: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append((record.levelname, record.getMessage()))


def _nodes(rank: int, size: int) -> dict[str, Any]:
    """Two ranks on each of two named nodes, as plain torchrun would have started them."""
    os.environ["TWINRUN_NODE_ID"] = f"node{rank // 2}"
    kept = _Kept()
    log = logging.getLogger("twinrun")
    log.setLevel(logging.DEBUG)
    log.addHandler(kept)
    inside = [dist.new_group([0, 1]), dist.new_group([2, 3])][rank // 2]
    x = torch.full((5,), float(rank))
    with AllReduce() as every, AllReduce(inside) as near:
        every(torch.ones(77))
        found = {
            "every": (every.plan(x).backend, every(x)[0].item()),
            "near": (near.plan(x).backend, near(x)[0].item()),
            "refused": dict(every.plan(x).declined),
            "off": dict(every._line(torch.device("cpu")).facts.off),
        }
    return {**found, "log": kept.told}


@pytest.mark.parametrize(("asked", "level"), [(None, "DEBUG"), ("1", "WARNING")])
def test_groups_that_span_nodes(asked: str | None, level: str) -> None:
    """Across nodes the library is used and says why, inside one shared memory; rank 0 says it once."""
    environ = {} if asked is None else {"TWINRUN_SYMMETRIC_ALL_REDUCE": asked}
    told = run_ranks(4, _nodes, environ=environ)
    for rank, row in enumerate(told):
        assert row["every"] == ("gloo", 6.0)
        assert row["near"] == ("shared_memory", 1.0 if rank < 2 else 5.0)
        assert "the group spans 2 nodes" in row["refused"]["shared_memory"]
        assert "the job spans 2 nodes" in row["off"]["symmetric"]
    orders = [[each for each in row["log"] if "sums in its own order" in each[1]] for row in told]
    assert [len(each) for each in orders] == [1, 0, 0, 0]
    decisions = [[each for each in row["log"] if "launch.in_node_only" in each[1]] for row in told]
    assert [len(each) for each in decisions] == [1, 0, 0, 0]
    assert decisions[0][0][0] == level and "one node only" in decisions[0][0][1]


def _by_name(rank: int, size: int) -> list[str]:
    os.environ["TWINRUN_NODE_ID"] = f"node{rank}"
    told = []
    for backend in ("shared_memory", "symmetric", "nccl"):
        with pytest.raises((LaunchError, UnavailableError)) as caught:
            AllReduce(backend=backend)
        told.append(f"{type(caught.value).__name__} {caught.value}")
    return told


def test_a_backend_by_name_that_cannot_be_had_is_refused() -> None:
    """By name means this one or an error that says why not."""
    for shared, symmetric, nccl in run_ranks(2, _by_name):
        assert "LaunchError" in shared and "spans 2 nodes" in shared
        assert "symmetric all-reduce was asked for by name" in symmetric
        assert "backend for cpu is gloo" in nccl


def _trouble(rank: int, size: int) -> str | None:
    """Rank 1 fails before a gather that rank 0 already waits in."""
    exchange = Exchange(dist.group.WORLD)
    trouble = None
    if rank == 1:
        trouble = "no room"
    else:
        try:
            exchange.gather(b"handle")
        except UnavailableError as error:
            trouble = f"told: {error.seen}"
    return exchange.first_trouble(trouble)


def test_one_ranks_failure_reaches_all() -> None:
    """A rank that fails halfway is heard by the peers that still gather, and none is left waiting."""
    first, second = run_ranks(2, _trouble)
    assert first == second and "no room" in str(first)


def _no_room(rank: int, size: int) -> tuple[str, str]:
    import twinrun.collectives.segment as segment

    if rank == 0:
        segment.SHARED = Path("/proc/nowhere")
    with AllReduce() as ar:
        chosen = ar.plan(torch.ones(3))
        assert ar(torch.ones(3))[0] == size
    return chosen.backend, str(chosen.why_not("shared_memory"))


def test_a_backend_that_does_not_come_up_gives_way_on_all_ranks() -> None:
    """Where one rank's workspace fails, every rank takes the next backend, with that reason."""
    for backend, reason in run_ranks(3, _no_room):
        assert backend == "gloo" and "rank 0" in reason


def _wrong_use(rank: int, size: int) -> None:
    with AllReduce() as ar:
        x = torch.ones(3, requires_grad=True)
        with pytest.raises(UsageError, match="passes no gradient on"):
            ar(x)
        with torch.no_grad():
            assert ar(x)[0] == size
        with pytest.raises(UsageError, match="out does not fit"):
            ar(torch.ones(3), out=torch.ones(4))
        with pytest.raises(UnavailableError, match="sum of bool"):
            try:
                ar(torch.ones(3, dtype=torch.bool))
            except UnavailableError as error:
                raise UnavailableError(str(error)) from error
    with pytest.raises(UsageError, match="unknown"):
        AllReduce(order="sideways")
    with pytest.raises(LaunchError, match="--deterministic cannot go with --order any"):
        AllReduce(order="any", deterministic=True)
    group = dist.new_group([0])
    if rank == 1:
        with pytest.raises(UsageError, match="no member"):
            AllReduce(group)


def test_wrong_use_is_refused_on_every_rank() -> None:
    """Gradients, sizes, dtypes, orders and groups that cannot work are errors with their reason."""
    run_ranks(2, _wrong_use)


def _close_and_destroy(rank: int, size: int) -> None:
    seen = weakref.ref(dist.group.WORLD)
    ar = AllReduce()
    assert ar(torch.ones(8))[0] == size
    ar.close()
    dist.destroy_process_group()
    gc.collect()
    assert seen() is None
    assert ar is not None
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def test_a_closed_one_lets_go_of_its_group() -> None:
    """A group that lives on to the interpreter's end is torn down by it, which may abort the process."""
    run_ranks(2, _close_and_destroy)


def test_without_a_process_group() -> None:
    """An AllReduce needs torch.distributed to be initialised, and says so."""
    with pytest.raises(UsageError, match="no process group"):
        AllReduce()
