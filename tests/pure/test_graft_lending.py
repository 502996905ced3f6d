"""Runs lent through a ring: the stream arrives whole whatever is withdrawn, and nothing stale is used."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinrun.errors import PeerError
from twinrun.grafting import lending
from twinrun.grafting.lending import LEAST_BYTES, PIECE
from twinrun.grafting.message import Message
from twinrun.grafting.outlet import Buffer, Outlet
from twinrun.grafting.ring import Ring
from twinrun.grafting.rows import Rows

if lending._read_memory is None:
    pytest.skip("this system has no process_vm_readv", allow_module_level=True)


def pair(pid: int | None = None, capacity: int = 64 << 10) -> tuple[Ring, Ring]:
    """Both ends in this process: the kernel reads its memory as it would another's."""
    ring = Ring.create(capacity, lends=True)
    return ring, Ring.open(os.dup(ring.fd), os.getpid() if pid is None else pid)


def noise(nbytes: int) -> torch.Tensor:
    return torch.randint(0, 256, (nbytes,), dtype=torch.uint8)


def test_a_long_run_is_read_where_it_lies() -> None:
    """The ring's own counters do not move; the writer learns piece by piece what has gone."""
    ring, reader = pair()
    sent, got = noise(PIECE + 100), torch.zeros(PIECE + 100, dtype=torch.uint8)
    assert ring.write(sent.data_ptr(), sent.numel()) == 0
    assert reader.read(got.data_ptr(), got.numel()) == PIECE
    assert ring.write(sent.data_ptr(), sent.numel()) == PIECE
    assert reader.read(got.data_ptr() + PIECE, 100) == 100
    assert reader.read(got.data_ptr(), 1) == 0
    assert ring.write(sent.data_ptr() + PIECE, 100) == 100
    assert torch.equal(sent, got) and ring._words[0] == ring._words[16] == 0


def test_nothing_is_lent_to_who_cannot_read_here() -> None:
    """Another process under that number, or none: the ring carries all."""
    for pid in (0, os.getppid() if os.getuid() else 2**22 - 1):
        ring, reader = pair(pid)
        sent, got = noise(LEAST_BYTES), torch.zeros(LEAST_BYTES, dtype=torch.uint8)
        assert 0 < ring.write(sent.data_ptr(), sent.numel()) <= 64 << 10
        assert reader.read(got.data_ptr(), got.numel()) > 0 and torch.equal(got[:64], sent[:64])


@given(st.data())
def test_a_stream_with_loans_arrives_whole(data: st.DataObject) -> None:
    """Short and long runs, read in any portions, withdrawn at any time, with memory that changes after."""
    ring, reader = pair()
    sizes = data.draw(
        st.lists(st.sampled_from([1, 1000, LEAST_BYTES, LEAST_BYTES + 7]), max_size=4)
    )
    runs = [noise(size) for size in sizes]
    expected = torch.cat([*runs, torch.empty(0, dtype=torch.uint8)]).clone()
    got = torch.zeros(int(sum(sizes)), dtype=torch.uint8)
    arrived = 0
    for run in runs:
        at = 0
        while at < run.numel():
            action = data.draw(st.sampled_from(["write", "write", "read", "withdraw"]))
            if action == "write":
                at += ring.write(run.data_ptr() + at, run.numel() - at)
            elif action == "read":
                want = data.draw(st.sampled_from([1, 500, 100_000, 1 << 20]))
                want = min(want, got.numel() - arrived)
                arrived += reader.read(got.data_ptr() + arrived, want) if want else 0
            else:
                at += ring.withdraw()
        run.fill_(
            0
        )  # it has all been moved, or copied into the ring: its memory is the program's again
    while arrived < got.numel():
        count = reader.read(got.data_ptr() + arrived, got.numel() - arrived)
        assert count
        arrived += count
    assert torch.equal(got, expected)


def test_what_was_copied_from_a_withdrawn_loan_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer takes its memory back in the middle of the reader's copy: no byte of that copy counts."""
    ring, reader = pair()
    sent, got = noise(LEAST_BYTES), torch.zeros(LEAST_BYTES, dtype=torch.uint8)
    assert ring.write(sent.data_ptr(), sent.numel()) == 0
    copy = lending._read_memory

    def late(*given: object) -> int:
        assert ring.withdraw() == 0
        sent.fill_(7)
        return int(copy(*given))

    monkeypatch.setattr(lending, "_read_memory", late)
    assert reader.read(got.data_ptr(), got.numel()) == 0
    monkeypatch.setattr(lending, "_read_memory", copy)
    assert reader.read(got.data_ptr(), got.numel()) == 0
    assert ring.write(sent.data_ptr(), 100) == 100 and reader.read(got.data_ptr(), 100) == 100


def test_rows_are_filled_from_a_loan() -> None:
    """A strided view gets whole rows at once, and rows that a portion cuts through."""
    ring, reader = pair()
    whole = torch.zeros(200, 2, 3000, dtype=torch.uint8)
    sent = noise(200 * 3000)
    rows = Rows.of(whole[:, 1])
    assert rows is not None and ring.write(sent.data_ptr(), 500_000) == 0
    at = 0
    while not rows.done:
        reader.read_rows(rows)
        end = 500_000 if at < 500_000 else sent.numel()
        at += ring.write(sent.data_ptr() + at, end - at) if at < end else 0
    assert torch.equal(whole[:, 1].reshape(-1), sent) and not whole[:, 0].any()


def test_a_closed_ring_lends_nothing() -> None:
    """The writer leaves in the middle of a loan: its memory is its own again."""
    ring, reader = pair()
    sent, got = noise(LEAST_BYTES), torch.zeros(LEAST_BYTES, dtype=torch.uint8)
    assert ring.write(sent.data_ptr(), sent.numel()) == 0
    ring.close()
    assert reader.read(got.data_ptr(), got.numel()) == 0


def test_an_interrupted_send_takes_its_loan_back() -> None:
    """The graft ends while nobody reads: the tensor is the program's again when the error reaches it."""
    ring, reader = pair()
    sent, got = noise(LEAST_BYTES), torch.zeros(LEAST_BYTES, dtype=torch.uint8)

    def gone() -> None:
        raise PeerError("the peer has gone")

    outlet = Outlet(lambda: ring, Buffer(0), gone, 5.0)
    with pytest.raises(PeerError, match="has gone"):
        outlet.send(Message('{"s":0}', [sent]))
    arrived = reader.read(got.data_ptr(), got.numel())
    assert 0 < arrived < 1000, "the header, which went through the ring"
    assert reader.read(got.data_ptr(), got.numel()) == 0


def test_memory_that_cannot_be_read_goes_through_the_ring() -> None:
    """As pinned memory, which the kernel will not read: refused once, and the stream is whole all the same."""
    ring, reader = pair()
    sent, got = noise(LEAST_BYTES), torch.zeros(LEAST_BYTES, dtype=torch.uint8)
    assert ring.write(sent.data_ptr(), sent.numel()) == 0
    ring._words[lending._ADDRESS] = 8
    assert reader.read(got.data_ptr(), got.numel()) == 0
    at = arrived = 0
    while arrived < got.numel():
        at += ring.write(sent.data_ptr() + at, sent.numel() - at)
        arrived += reader.read(got.data_ptr() + arrived, got.numel() - arrived)
    assert torch.equal(sent, got) and ring._words[0] == sent.numel()


def test_a_count_that_makes_no_sense_is_refused() -> None:
    """A broken reader may write anything into its words: an error, no crash."""
    ring, _ = pair()
    sent = noise(LEAST_BYTES)
    assert ring.write(sent.data_ptr(), sent.numel()) == 0
    ring._words[lending._TAKEN] = 2**60
    with pytest.raises(PeerError, match="broken"):
        ring.write(sent.data_ptr(), sent.numel())
