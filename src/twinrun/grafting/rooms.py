"""Room in a peer's device memory: pads of the kinds that are needed, mapped into this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch

from twinrun.errors import PeerError, UnavailableError
from twinrun.grafting.board import GONE, Board
from twinrun.grafting.inside import Inside
from twinrun.grafting.layer import Layer
from twinrun.grafting.outlet import GRACE_S
from twinrun.grafting.packing import Flat, NoRoom
from twinrun.grafting.patience import Patience
from twinrun.grafting.reference import Opening, Segment

Key = tuple[int, int | None]
"""Bytes of a payload, and the tiling that it is a part of, None for none."""

AT_ONCE = 3
"""Pads of a kind that come without waiting for the receiver."""


@dataclass(slots=True)
class Pad:
    """One pad: what it is for, which time it was used last, and by which message.

    ``span``: the bytes from its place on that payloads may lie in.
    """

    number: int
    key: Key
    span: int
    used: int
    message: int = -1

    @property
    def nbytes(self) -> int:
        """Those of a payload."""
        return self.key[0]


Place = tuple[Pad, Flat, int]
"""A free pad, the memory that it lies in, and where."""


class Rooms:
    """The pads that one peer has opened to this process.

    A pad is used again once the receiver has freed it, which the board says. ``ask`` gets another pad
    of the peer, or None while it has no room (NoRoom: it never will); ``drop`` gives idle ones back.
    ``check`` raises when the peer has gone. Used by one thread at a time, but for ``know`` and ``shut``.
    """

    def __init__(
        self,
        layer: Layer,
        device: torch.device,
        board: Board,
        ask: Callable[[int, int | None], Opening | None],
        drop: Callable[[list[int]], None],
        check: Callable[[], None],
        timeout_s: float,
    ) -> None:
        self._layer, self._device, self._board = layer, device, board
        self._ask, self._drop = ask, drop
        self._check, self._timeout_s = check, timeout_s
        self._pads: dict[Key, list[Pad]] = {}
        self._apart: set[int] = set()
        """tilings that the receiver had no memory for"""
        self._short: set[Key] = set()
        """of which the receiver had no room for another pad"""
        self._late: set[int] = set()
        """tilings for which a pad was waited for in vain; the next free one ends that"""
        self._told: dict[int, Segment] = {}
        self._open: dict[int, Flat] = {}
        self.left = False
        self.lock = threading.Lock()
        """held while memory is mapped or written to, and while it is let go"""

    def know(self, segment: Segment) -> None:
        """The peer tells of memory that pads will lie in."""
        self._told[segment.number] = segment

    def pads(self) -> list[Pad]:
        """All of them."""
        return [pad for pads in list(self._pads.values()) for pad in list(pads)]

    def freed(self, pad: Pad) -> bool:
        """Whether the receiver is done with what was put there last."""
        return self._board.freed(pad.number) > pad.used

    def shut(self) -> None:
        """Close the peer's memory; under the lock."""
        for flat in self._open.values():
            self._layer.shut(self._device, flat.address)
        self._open.clear()

    def whole(self, inside: Inside, nbytes: int, size: int) -> Place | None:
        """Room in the receiver's whole value; None where there is none, or none for a while.

        Three pads are all: more would not be taken in the same order as those of the other senders.
        """
        tiling = inside.tiling
        if tiling in self._apart:
            return None
        key = nbytes, tiling
        pads = self._pads.setdefault(key, [])
        try:
            while len(pads) < AT_ONCE and key not in self._short:
                if not self._grow(key, inside.elements * size):
                    self._short.add(key)
        except NoRoom:
            self._apart.add(tiling)
            return None
        found = self._free(pads)
        if found is not None:
            self._late.discard(tiling)
        elif tiling not in self._late:
            patience = Patience(GRACE_S, self._check)
            while (found := self._free(pads)) is None and patience.pause():
                pass
            if found is None:
                self._late.add(tiling)
        return found

    def any(self, nbytes: int) -> Place:
        """Room for payloads of a size, more of it whenever the receiver stays away for long."""
        key = nbytes, None
        pads = self._pads.setdefault(key, [])
        found = self._free(pads)
        if found is None and len(pads) < AT_ONCE and self._grow(key, nbytes):
            found = self._free(pads)
        if found is not None:
            return found
        patience, ask_at_s = Patience(self._timeout_s, self._check), GRACE_S
        while (found := self._free(pads)) is None:
            if patience.waited_s > ask_at_s:
                ask_at_s += GRACE_S
                self._grow(key, nbytes)
            elif not patience.pause():
                raise PeerError(
                    f"nothing was taken for {self._timeout_s:g} s and the receiver's GPU has no room"
                )
        return found

    def _free(self, pads: list[Pad]) -> Place | None:
        for pad in tuple(pads):
            if self.freed(pad):
                found = self._place(pad)
                if found is not None:
                    # The one that was used longest ago comes first, as at the other senders.
                    pads.remove(pad)
                    pads.append(pad)
                    return pad, *found
        return None

    def _place(self, pad: Pad) -> tuple[Flat, int] | None:
        """Where a free pad lies; None while that is not known yet, or no more."""
        segment, offset = self._board.place(pad.number)
        if segment == GONE:
            self._pads[pad.key].remove(pad)
            return None
        flat = self._open.get(segment) or self._opened(segment)
        if flat is None:
            return None
        if offset + pad.span > flat.nbytes:
            raise PeerError("the receiver offers room beyond its own memory")
        return flat, offset

    def _opened(self, number: int) -> Flat | None:
        told = self._told.get(number)
        if told is None:
            return None
        with self.lock:
            if self.left:
                raise NoRoom("the receiver has left")
            try:
                address = self._layer.open(self._device, told.handle, told.nbytes)
            except UnavailableError as error:
                raise NoRoom(str(error.seen or error.summary)) from None
            flat = self._open[number] = Flat(self._layer.flat(self._device, address, told.nbytes))
        return flat

    def _grow(self, key: Key, span: int) -> bool:
        """One pad more, if the peer has room for it; idle ones for other things make room.

        NoRoom where none of these can be had at all.
        """
        opening = self._ask(*key)
        if opening is None:
            idle = [pad for pad in self.pads() if pad.key != key and self._idle(pad)]
            if idle:
                self._part_with(idle)
                opening = self._ask(*key)
        if opening is not None:
            for pad in self.pads():  # one that the peer could not keep leaves its number to another
                if pad.number == opening.pad:
                    self._pads[pad.key].remove(pad)
            self._pads[key].append(Pad(opening.pad, key, span, opening.times - 1))
        elif not self._pads[key]:
            raise NoRoom("the receiver's memory for others is full: --graft-buffer")
        return opening is not None

    def _idle(self, pad: Pad) -> bool:
        return self.freed(pad) and self._board.place(pad.number)[0] != GONE

    def _part_with(self, idle: list[Pad]) -> None:
        self._short.clear()
        self._apart.clear()
        for pad in idle:
            self._pads[pad.key].remove(pad)
        # The receiver may free memory once it is not mapped here any more.
        still = {self._board.place(pad.number)[0] for pad in self.pads()}
        with self.lock:
            for number in [number for number in self._open if number not in still]:
                self._layer.shut(self._device, self._open.pop(number).address)
        self._drop([pad.number for pad in idle])
