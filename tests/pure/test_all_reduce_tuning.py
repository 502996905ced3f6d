"""The tuning table and its reader: which kernel a request gets, with which launch shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.collectives import one_shot_push, tuning, two_shot_push
from twinrun.collectives.facts import GroupFacts, Offer, Request
from twinrun.kernels.arguments import MAX_THREADS, resident_blocks

H200 = "NVIDIA H200"
MULTIPROCESSORS = {H200: 132}
LIMIT = {"one_shot_push": one_shot_push.limit_bytes, "two_shot_push": two_shot_push.limit_bytes}


def facts(world: int, gpu: str = H200) -> GroupFacts:
    ranks = tuple(range(world))
    return GroupFacts(ranks, ("node",) * world, "cuda", "nccl", gpu, (9, 0))


def offer(world: int, nbytes: int, gpu: str = H200, **more: object) -> Offer:
    request = Request(nbytes, "bfloat16", **more)  # type: ignore[arg-type]
    found = tuning.pick("symmetric", facts(world, gpu), request)
    assert isinstance(found, Offer)
    return found


@pytest.mark.parametrize("table", tuning.tables(), ids=lambda t: f"{t.gpu} {t.world}")
def test_every_table_can_be_carried_out(table: tuning.Table) -> None:
    """Rows rise, name known kernels, fit the GPU twice over, and the last fits one launch."""
    sizes = [row.nbytes for row in table.rows]
    assert sizes == sorted(set(sizes))
    for row in table.rows:
        fits = resident_blocks(table.world, MULTIPROCESSORS[table.gpu], row.threads) // 2
        assert row.algorithm in LIMIT and 0 < row.threads <= MAX_THREADS
        assert 0 < row.blocks <= fits
    within = [row for row in table.rows if row.nbytes <= 16 << 20]
    assert all(row.nbytes <= LIMIT[row.algorithm](table.world, table.slot_bytes) for row in within)


def test_a_request_takes_the_first_row_that_is_no_smaller() -> None:
    """A size between two rows has the larger one's shape; beyond the last, the last one's."""
    table = tuning.find("symmetric", H200, 4)
    assert table
    assert table.row(1) == table.rows[0]
    assert table.row(table.rows[0].nbytes) == table.rows[0]
    assert table.row(table.rows[0].nbytes + 1) == table.rows[1]
    assert table.row(1 << 40) == table.rows[-1]


@given(nbytes=st.integers(1, 1 << 34), world=st.sampled_from([2, 3, 4, 6, 8]))
def test_every_size_gets_an_offer(nbytes: int, world: int) -> None:
    """No size is without a kernel, on a GPU that was measured and on one that was not."""
    for gpu in (H200, "NVIDIA A100"):
        found = offer(world, nbytes, gpu)
        assert found.blocks > 0 and 0 < found.threads <= MAX_THREADS


def test_what_was_not_measured_says_so() -> None:
    """The reason names the GPU and the number of ranks that no table was measured for."""
    assert "no table was measured for 6 ranks on NVIDIA H200" in offer(6, 1024).reason
    assert (
        "no table was measured for 4 ranks on NVIDIA A100" in offer(4, 1024, "NVIDIA A100").reason
    )
    assert "measured on 4 x NVIDIA H200" in offer(4, 1024).reason


def test_any_order_is_the_order_of_the_ranks() -> None:
    """Summing in rank order costs nothing here, so that is what is stated."""
    assert offer(4, 1024, order="any").order == "ranks"
    assert offer(4, 1024, order="tree").order == "tree"


def test_gpus_that_differ_are_declined() -> None:
    """Ranks on different GPUs would start different grids."""
    request = Request(1024, "bfloat16")
    assert "differ" in str(tuning.pick("symmetric", facts(2, "mixed"), request))


def test_in_place_reading_needs_a_registered_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """two_shot_pull is offered inside AllReduce.capture() only, from its measured size on."""
    pull = tuning.Row(1 << 20, "two_shot_pull", 64, 256)
    table = tuning.Table(
        "symmetric", H200, 4, 1 << 20, (tuning.Row(1, "one_shot_push", 1, 64),), pull, "o"
    )
    monkeypatch.setattr(tuning, "find", lambda *_: table)
    inside = {"capturing": True, "registers": True}
    assert offer(4, 1 << 20, **inside).algorithm == "two_shot_pull"
    assert offer(4, (1 << 20) - 1, **inside).algorithm == "one_shot_push"
    assert offer(4, 1 << 20, capturing=True).algorithm == "one_shot_push"


def test_what_is_read_in_place_is_told_by_the_plan() -> None:
    """In place only inside capture(), on memory that every rank can open, and in one launch."""
    table = tuning.find("symmetric", H200, 4)
    assert table
    pulling = replace(table, pull=tuning.Row(1 << 20, "two_shot_pull", 64, 256))
    inside = {"capturing": True, "registers": True}
    cases = [
        (inside, 1 << 20, True, True), (inside, 1 << 20, None, True), (inside, 1 << 20, False, False),
        (inside, (1 << 20) - 2, True, False), (inside, 1 << 33, True, False),
        ({"capturing": True}, 1 << 20, True, False), ({"registers": True}, 1 << 20, True, False),
    ]  # fmt: skip
    for asked, nbytes, reachable, in_place in cases:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tuning, "find", lambda *_: pulling)
            request = Request(nbytes, "bfloat16", **asked)  # type: ignore[arg-type]
            told = tuning.pick("symmetric", replace(facts(4), in_place=reachable), request)
        assert isinstance(told, Offer)
        assert (told.algorithm == "two_shot_pull") == in_place, (asked, nbytes, reachable)
