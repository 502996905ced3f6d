"""The sending half: who wants which boxes of what, and values kept for those who have not said yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from twinrun.errors import LayoutError, PeerError
from twinrun.grafting.inside import Inside
from twinrun.grafting.ledger import Ledger
from twinrun.grafting.memory import on_host, snapshot
from twinrun.grafting.message import Message
from twinrun.grafting.outlet import Buffer
from twinrun.grafting.point import Point, Rank
from twinrun.grafting.wire import json_text, quoted
from twinrun.layout.box import Box


@dataclass(frozen=True, slots=True)
class Want:
    """One receiver's standing order for a name, as long as we hold it as announcement ``saw``.

    ``boxes`` is None for the whole value with its extras, empty for nothing at all.
    """

    receiver: Rank
    name: str
    since: tuple[int, int]
    saw: int
    number: int
    boxes: tuple[Box, ...] | None
    inside: Inside | None = None
    """where the boxes go at the receiver, if they can be put there"""

    @classmethod
    def read(cls, receiver: Rank, header: dict[str, Any]) -> Want:
        """A want from a message; PeerError for anything else."""
        try:
            boxes, inside = header["boxes"], None
            if boxes is not None:
                boxes = tuple(Box(tuple(map(int, a)), tuple(map(int, b))) for a, b in boxes)
                if "inside" in header:
                    inside = Inside.read(header["inside"], boxes)
            return cls(
                receiver,
                str(header["name"]),
                (int(header["since"][0]), int(header["since"][1])),
                int(header["saw"]),
                int(header["k"]),
                boxes,
                inside,
            )
        except (KeyError, TypeError, ValueError, IndexError, LayoutError) as error:
            raise PeerError(f"{receiver} sent an order that makes no sense: {error!r}") from None


@dataclass(slots=True)
class Parcel:
    """What is given at one point: the tensor (None for a plain value) and what goes with it. Never changed."""

    point: Point
    announced: int
    tensor: torch.Tensor | None
    value: Any = None
    extras: Any = None
    beside: tuple[torch.Tensor, ...] = ()
    """tensors inside ``value`` and ``extras``, in the order of their numbers"""

    @property
    def nbytes(self) -> int:
        held = [t for t in (self.tensor, *self.beside) if t is not None]
        return sum(t.numel() * t.element_size() for t in held)

    def copied(self) -> Parcel:
        """The same with tensors of its own."""
        own = None if self.tensor is None else snapshot(self.tensor)
        beside = tuple(map(snapshot, self.beside))
        return Parcel(self.point, self.announced, own, self.value, self.extras, beside)

    def message(self, want: Want) -> Message:
        """The message that answers ``want``, through host memory; PeerError as ``parts``."""
        header, tensors = self.parts(want)
        return Message(header, [t if t.is_cpu else on_host(t) for t in tensors])

    def parts(self, want: Want) -> tuple[str, Sequence[torch.Tensor]]:
        """Header (JSON) and tensors of what answers ``want``; PeerError for boxes outside the tensor."""
        if want.boxes is None:
            whole = () if self.tensor is None else (self.tensor,)
            more: dict[str, Any] = {"v": [self.value] if self.tensor is None else None}
            more |= {"x": self.extras}
            more["b"] = [[str(t.dtype)[6:], list(t.shape)] for t in (*whole, *self.beside)]
            return _head(self, want, more), (*whole, *self.beside)
        if self.tensor is None:
            raise PeerError(f"{want.receiver} wants boxes of {self.point}, which is no tensor")
        return _head(self, want), [_view(self.tensor, box, want) for box in want.boxes]


def _head(parcel: Parcel, want: Want, more: dict[str, Any] | None = None) -> str:
    step, name, occurrence = parcel.point
    rest = "}" if more is None else f",{json_text(more)[1:]}"
    return (
        f'{{"p":[{step},{quoted(name)},{occurrence}],"h":{parcel.announced},"k":{want.number}{rest}'
    )


def _view(tensor: torch.Tensor, box: Box, want: Want) -> torch.Tensor:
    shape = tuple(tensor.shape)
    if box.covers(shape):
        return tensor
    if len(box.stops) != len(shape) or not Box.whole(shape).contains(box):
        raise PeerError(f"{want.receiver} wants {box} of {want.name}, whose shape is {list(shape)}")
    return tensor[box.slices]


class Given(NamedTuple):
    """What became of one parcel: bytes sent or staged, how many receivers, over which channel."""

    nbytes: int
    receivers: int
    channel: str


@dataclass
class Kept:
    """A parcel that waits for ranks that have not said whether they want it."""

    parcel: Parcel
    done: set[Rank] = field(default_factory=set)
    taken: int = 0
    dropped: str = ""
    """why its values are gone; the entry stays for those who have yet to ask for them"""

    def message(self, want: Want) -> Message:
        """The message that answers ``want``: the value, or why it cannot be had any more."""
        if not self.dropped:
            return self.parcel.message(want)
        return Message(_head(self.parcel, want, {"late": self.dropped}))


class Shelf:
    """Kept parcels and standing orders. Callers hold the exchange's lock."""

    def __init__(self, buffer: Buffer, ledger: Ledger) -> None:
        self._buffer = buffer
        self._ledger = ledger
        self._wants: dict[tuple[str, int], dict[Rank, Want]] = {}
        self.kept: list[Kept] = []

    def orders(self, parcel: Parcel) -> dict[Rank, Want]:
        """Who has said what it wants of this parcel."""
        held = self._wants.get((parcel.point.name, parcel.announced), {})
        return {rank: want for rank, want in held.items() if want.since <= parcel.point.at}

    def order(self, want: Want) -> list[Kept]:
        """Note an order; what is kept for it, each to be answered once."""
        self._wants.setdefault((want.name, want.saw), {})[want.receiver] = want
        found = []
        for kept in self.kept:
            parcel = kept.parcel
            if (parcel.point.name, parcel.announced) == (want.name, want.saw):
                if want.receiver in kept.done:
                    continue
                kept.done.add(want.receiver)
                if parcel.point.at >= want.since and want.boxes != ():
                    kept.taken += 1
                    found.append(kept)
        return found

    def keep(self, parcel: Parcel, done: Sequence[Rank]) -> None:
        """Hold a copy for every rank that is not ``done``; its bytes are in the buffer already."""
        self.kept.append(Kept(parcel.copied(), set(done), len(done)))

    def sweep(self, receivers: Sequence[Rank] | None) -> None:
        """Drop what every one of ``receivers`` has taken or will never want (None: not all are known)."""
        if receivers is None:
            return
        left = []
        for kept in self.kept:
            if any(
                r not in kept.done and not self._ledger.past(r, kept.parcel.point)
                for r in receivers
            ):
                left.append(kept)
            else:
                self._buffer.free(kept.parcel.nbytes)
        self.kept = left

    def evict(self, why: str) -> bool:
        """Drop the oldest values that somebody has taken; whether there were any."""
        for kept in self.kept:
            if kept.taken and not kept.dropped:
                self._buffer.free(kept.parcel.nbytes)
                kept.parcel = Parcel(kept.parcel.point, kept.parcel.announced, None)
                kept.dropped = why
                return True
        return False
