"""What a message says of device memory: a segment that can be opened, and the pad that a payload lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from twinrun.errors import PeerError
from twinrun.grafting.board import PADS

HANDLE_BYTES = 64
CHUNK_BYTES = 128 << 20
"""A receiver begins to read once the first of these lies ready; each part costs both processors a launch."""

_MOST_BYTES = 1 << 39


@dataclass(frozen=True, slots=True)
class Segment:
    """How a peer opens an allocation of the receiver's: a number, its size, its IPC handle."""

    number: int
    nbytes: int
    handle: bytes

    def as_json(self) -> list[Any]:
        return [self.number, self.nbytes, self.handle.hex()]

    @classmethod
    def read(cls, body: Any, who: str) -> Segment:
        """A segment from a message; PeerError for anything else."""
        try:
            number, nbytes, text = body
            handle = bytes.fromhex(text)
            if not _sound(number, nbytes) or nbytes == 0 or len(handle) != HANDLE_BYTES:
                raise ValueError("out of range")
        except (TypeError, ValueError) as error:
            raise PeerError(
                f"{who} described memory that makes no sense: {error}", seen=repr(body)[:80]
            ) from None
        return cls(number, nbytes, handle)


@dataclass(frozen=True, slots=True)
class Opening:
    """A pad that the sender may use from the ``times``-th time on that it is freed."""

    pad: int
    times: int

    def as_json(self) -> list[int]:
        return [self.pad, self.times]

    @classmethod
    def read(cls, body: Any, who: str) -> Opening:
        """An opening from a message; PeerError for anything else."""
        if isinstance(body, list) and len(body) == 2 and _sound(*body) and body[0] < PADS:
            return cls(*body)
        raise PeerError(f"{who} offers room that makes no sense", seen=repr(body)[:80])


class Reference(NamedTuple):
    """The payload of message ``number``: the first ``nbytes`` of a pad."""

    pad: int
    nbytes: int
    number: int

    def as_json(self) -> list[int]:
        return [self.pad, self.nbytes, self.number]

    @classmethod
    def read(cls, body: Any, who: str) -> Reference:
        """A reference from a message; PeerError for anything else."""
        if isinstance(body, list) and len(body) == 3 and _sound(*body):
            return cls(*body)
        raise PeerError(f"{who} sent a payload that lies nowhere", seen=repr(body)[:80])


def numbers(body: Any, who: str) -> tuple[int, int]:
    """(number, bytes) of a payload that waits to be asked for; PeerError for anything else."""
    if isinstance(body, list) and len(body) == 2 and _sound(*body):
        return body[0], body[1]
    raise PeerError(f"{who} sent a payload that makes no sense", seen=repr(body)[:80])


def _sound(*numbers: Any) -> bool:
    return all(map(_counts, numbers))


def _counts(number: Any) -> bool:
    return type(number) is int and 0 <= number < _MOST_BYTES
