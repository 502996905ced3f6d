"""The parts of direct channels that need no device: choice, boards, references, blocks."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinrun.errors import PeerError
from twinrun.grafting.answering import Answering
from twinrun.grafting.board import (
    PADS,
    Board,
    free_index,
    ready_word,
)
from twinrun.grafting.choice import HOST, IPC, NCCL, End, against_ipc, against_nccl, described
from twinrun.grafting.outlet import Buffer
from twinrun.grafting.packing import pieces
from twinrun.grafting.reference import CHUNK_BYTES, Opening, Reference, Segment, numbers

HERE = End("a", "2.28.9")


@pytest.mark.parametrize(
    ("theirs", "wanted", "why"),
    [
        (End("b", "2.28.9"), "auto", ""),
        (End("b", "2.28.9"), "nccl", ""),
        (End("b", "2.28.9"), "ipc", "ipc was asked for"),
        (End("a", "2.28.9"), "auto", "both use one GPU"),
        (End("b", "2.27.5"), "auto", "version 2.28.9 here, 2.27.5 there"),
        (End("b", ""), "auto", "the receiver has no shared NCCL library"),
        (End("", ""), "auto", "the receiver uses no GPU"),
    ],
)
def test_nccl_is_for_two_gpus_of_equal_versions(theirs: End, wanted: str, why: str) -> None:
    """NCCL joins two GPUs whose versions are equal; everything else has its reason."""
    assert against_nccl(HERE, theirs, wanted) == why


def test_ipc_is_for_processes_that_share_a_host() -> None:
    """Descriptors must be handed over, and another channel may have been asked for."""
    assert against_ipc("auto", True) == against_ipc("ipc", True) == ""
    assert "different hosts" in against_ipc("auto", False)
    assert against_ipc("host", True) == "host was asked for"


def test_a_channel_is_told_with_its_reasons() -> None:
    """Only what was left out is explained."""
    assert described(IPC, {IPC: ""}, "shared memory") == "cuda ipc"
    assert described(NCCL, {IPC: "no peer access", NCCL: ""}, "tcp") == (
        "nccl (cuda ipc: no peer access)"
    )
    assert (
        described(HOST, {IPC: "x", NCCL: "y"}, "tcp")
        == "host memory over tcp (cuda ipc: x; nccl: y)"
    )


def test_a_board_tells_messages_of_one_pad_apart() -> None:
    """A word is only about its own message, also after the pad was used before."""
    board = Board.create()
    again = Board.open(os.dup(board.fd))
    for times, number in enumerate((0, 1, 5000, (1 << 24) + 7)):
        assert again.ready(3, number) == 0 and again.freed(3) == times
        board.store(3, ready_word(number, 77))
        assert again.ready(3, number) == 77 and again.ready(3, number + 1) == 0
        board.put(3, times, 512)
        board.store(free_index(3), times + 1)
        assert again.freed(3) == times + 1 and again.place(3) == (times, 512)
        assert again.freed(2) == again.ready(2, number) == 0


class Gone:
    """The desk of a peer that has left a moment ago."""

    def tell(self, header: Any, fd: int | None = None) -> None:
        raise PeerError("cannot be told")

    def check(self) -> None:
        """Nothing is known of that yet."""


class Memory:
    """Stands in for what a peer was given."""

    left: bool | None = None

    def close(self, *, left: bool) -> None:
        self.left = left


def test_a_peer_that_left_before_it_was_told_to_is_heard() -> None:
    """Its last word is waited for: else its memory would be held until the process ends."""
    answering = Answering(None, Gone(), Buffer(1), who="a peer", timeout_s=1.0)
    answering._landing = memory = Memory()  # type: ignore[assignment]
    word = threading.Timer(0.1, answering.heard, ({"t": "left"}, lambda: -1))
    word.start()
    answering.leave()
    answering.close()
    word.join()
    assert memory.left is True


def test_only_sealed_pages_are_boards() -> None:
    """A descriptor of another size, or one that could shrink under our feet, is refused."""
    for size in (4096, 1 << 20):
        fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        with pytest.raises(PeerError, match="no sealed board"):
            Board.open(fd)


def test_references_read_what_they_write() -> None:
    """What goes over the wire comes back equal."""
    segment, reference = Segment(3, 1 << 21, bytes(range(64))), Reference(1, 512, 100)
    assert Segment.read(segment.as_json(), "x") == segment
    assert Reference.read(reference.as_json(), "x") == reference
    assert Opening.read(Opening(4, 5).as_json(), "x") == Opening(4, 5)
    assert numbers([4, 5], "x") == (4, 5)


@pytest.mark.parametrize(
    "body", [None, [], [1, 2, "zz"], [True, 1, "00" * 64], [0, 0, "00" * 64], 7]
)
def test_a_segment_that_makes_no_sense_is_refused(body: object) -> None:
    """A peer's words are checked before anything is opened."""
    with pytest.raises(PeerError, match="makes no sense"):
        Segment.read(body, "x")


@pytest.mark.parametrize("body", [None, [], [1], [-1, 1], [PADS, 1], [True, 1], "x"])
def test_room_that_makes_no_sense_is_refused(body: object) -> None:
    """A pad's number is an index of the board's."""
    with pytest.raises(PeerError, match="makes no sense"):
        Opening.read(body, "x")


@given(st.lists(st.integers(1, 40), max_size=4), st.sampled_from([1, 4, 1 << 16]))
def test_pieces_are_the_tensor_in_order(shape: list[int], itemsize: int) -> None:
    """Both ends cut alike: the pieces follow each other in row-major order, none far above the chunk."""
    count = 1
    for size in shape:
        count *= size
    whole = torch.arange(count, dtype=torch.int32).view(shape)
    cut = list(pieces(whole, itemsize))
    assert torch.equal(torch.cat([p.reshape(-1) for p in cut]), whole.reshape(-1))
    rows = max([n for n in shape if n > 1][:1] or [1])
    assert all(p.numel() * itemsize <= max(CHUNK_BYTES, count * itemsize // rows) for p in cut)
