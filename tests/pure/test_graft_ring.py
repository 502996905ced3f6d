"""A ring as a stream of bytes: whole frames, glances at what comes next, and wrapping around, in any mix."""

from __future__ import annotations

import os

import torch
from hypothesis import given
from hypothesis import strategies as st

from twinrun.grafting.inlet import Inlet
from twinrun.grafting.message import Message
from twinrun.grafting.outlet import Buffer, Outlet
from twinrun.grafting.ring import Ring


def pair(capacity: int = 1 << 10) -> tuple[Ring, Ring]:
    ring = Ring.create(capacity)
    return ring, Ring.open(os.dup(ring.fd))


@given(st.data())
def test_frames_and_glances_keep_the_stream_whole(data: st.DataObject) -> None:
    """What is put or written comes out once and in order, whether it is read or peeked at and skipped."""
    ring, reader = pair()
    sent, got, buffer = b"", b"", torch.zeros(2048, dtype=torch.uint8)
    for at in range(data.draw(st.integers(1, 30))):
        frame = bytes((at + n) % 251 for n in range(data.draw(st.integers(1, 700))))
        if data.draw(st.booleans()):
            sent += frame if ring.put(frame) else b""
        else:
            source = torch.frombuffer(bytearray(frame), dtype=torch.uint8)
            sent += frame[: ring.write(source.data_ptr(), len(frame))]
        nbytes = data.draw(st.integers(1, 1500))
        if data.draw(st.booleans()):
            shown = reader.peek(nbytes)
            taken = shown[: data.draw(st.integers(0, len(shown)))]
            reader.skip(len(taken))
            got += taken
        else:
            count = reader.read(buffer.data_ptr(), nbytes)
            got += bytes(buffer[:count].tolist())
    while count := reader.read(buffer.data_ptr(), 2048):
        got += bytes(buffer[:count].tolist())
    assert got == sent


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 60)), min_size=1, max_size=20))
def test_messages_of_any_head_and_payload_arrive(sizes: list[tuple[int, int]]) -> None:
    """Heads that fit a glance, that wrap around and that are longer than one: all are read alike."""
    ring, reader = pair(4096)
    outlet = Outlet(lambda: ring, Buffer(1 << 20), lambda: None, 5.0)
    inlet = Inlet(reader, "a peer", lambda: None, 5.0, _Nowhere())
    for at, (text, payload) in enumerate(sizes):
        value = torch.arange(payload, dtype=torch.float32)
        outlet.send(Message(f'{{"at":{at},"text":"{"x" * text}"}}', [value] if payload else []))
        header = inlet.poll()
        assert header == {"at": at, "text": "x" * text}
        assert torch.equal(inlet.read_all().view(torch.float32), value)
    assert inlet.poll() is None


class _Nowhere:
    """No payload lies elsewhere."""

    def payload(self, header: object) -> None:
        return None
