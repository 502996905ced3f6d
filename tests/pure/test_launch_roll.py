"""The roll call of a launch: which nodes clash, which merely started again, and what strangers send."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.launch import roll, roll_call
from twinrun.launch.roll import GRACE_S, Report, Roll, read_answer, read_report


def report(name: str, rank: int, nodes: int = 3) -> Report:
    return Report(name.ljust(32, "0"), f"host-{name}", rank, nodes)


def heard(board: Roll, *order: tuple[Report, float]) -> str | None:
    for one, when in order:
        board.take(one, "10.0.0.1", when)
    return board.trouble


def test_two_nodes_of_one_rank_are_named() -> None:
    """Both are heard in turn, so both live: the clash has the rank and both hosts."""
    a, b = report("a", 1), report("b", 1)
    board = Roll(3)
    assert heard(board, (report("0", 0), 0.0), (a, 0.1), (b, 0.3)) is None
    told = heard(board, (a, 0.6))
    assert told and "node rank 1" in told and "host-a" in told and "host-b" in told


def test_a_node_that_was_started_again_is_no_clash() -> None:
    """The old key has fallen silent when the new one comes."""
    old, new = report("old", 1), report("new", 1)
    assert heard(Roll(3), (old, 0.0), (old, 0.5), (new, 0.9), (new, 1.4), (new, 1.9)) is None


def test_nodes_that_were_promised_other_numbers_are_named() -> None:
    """--nnodes must be the same everywhere."""
    told = heard(Roll(3), (report("0", 0), 0.0), (report("a", 1, nodes=4), 0.1))
    assert told and "--nnodes 4" in told and "--nnodes 3" in told and "host-a" in told


def test_the_roll_is_complete_a_while_after_the_last_new_node() -> None:
    """So that a second claim of a rank that came at once is heard too."""
    board = Roll(2)
    heard(board, (report("0", 0, 2), 0.0), (report("a", 1, 2), 1.0))
    assert not board.complete(1.0 + GRACE_S / 2)
    assert board.complete(1.0 + GRACE_S)
    heard(board, (report("b", 1, 2), 1.0 + GRACE_S))
    assert not board.complete(1.1 + GRACE_S)
    assert not Roll(2).complete(100.0)


@given(st.binary(max_size=200))
def test_what_strangers_send_is_no_report(message: bytes) -> None:
    """Nothing but a report is read as one, and nothing raises."""
    assert read_report(message) is None
    assert read_answer(message, "0" * 32) is None


@pytest.mark.parametrize(
    "changed",
    [{"rank": -1}, {"rank": 3}, {"rank": True}, {"rank": "1"}, {"nodes": 10**9}, {"key": "short"},
     {"host": 5}, {"twinrun": "other"}],
)  # fmt: skip
def test_a_report_out_of_range_is_none(changed: dict[str, object]) -> None:
    """Every field is checked: anybody may send to a port."""
    told = json.loads(report("a", 1).message())
    assert read_report(json.dumps(told).encode()) == report("a", 1)
    assert read_report(json.dumps({**told, **changed}).encode()) is None


def test_an_answer_to_another_is_none() -> None:
    """Only who saw a node's report can answer it."""
    board, one = Roll(1), report("0", 0, 1)
    board.take(one, "10.0.0.1", 0.0)
    assert read_answer(board.answer(one, GRACE_S), one.key) == (True, None)
    assert read_answer(board.answer(one, GRACE_S), "1" * 32) is None


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call a tenth as long."""
    monkeypatch.setattr(roll, "GRACE_S", 0.2)
    monkeypatch.setattr(roll_call, "EVERY_S", 0.05)
    monkeypatch.setattr(roll_call, "_LINGER_S", 0.3)


def called(*reports: Report) -> list[str | None]:
    """What each node of a roll call on this host is told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    told: dict[str, str | None] = {}
    threads = [
        threading.Thread(
            target=lambda one=one: told.update(  # type: ignore[misc]
                {one.key: roll_call.call(one, "127.0.0.1", port, lambda: True)}
            )
        )
        for one in reports
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [told[one.key] for one in reports]


def test_nodes_of_different_ranks_are_all_told_to_go_on(quickly: None) -> None:
    """Over sockets: each hears that all are there."""
    assert called(report("0", 0, 2), report("a", 1, 2)) == [None, None]


def test_a_clash_is_told_to_every_node(quickly: None) -> None:
    """Over sockets: also those that are not to blame print it, and none goes on."""
    told = called(report("0", 0), report("a", 1), report("b", 1))
    assert all(text and "node rank 1 is claimed by" in text for text in told), told


def test_a_second_node_0_is_told_too(quickly: None) -> None:
    """It cannot answer on the port, and still hears the first one."""
    told = called(report("0", 0, 2), report("z", 0, 2))
    assert all(text and "node rank 0 is claimed by" in text for text in told), told
