"""The receiving half of a direct channel: pads that one sender writes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from twinrun.errors import PeerError, UnavailableError
from twinrun.grafting.board import GONE, PADS, Board, free_index
from twinrun.grafting.exporting import Export
from twinrun.grafting.frame import HANDS, Frame, Share
from twinrun.grafting.landed import Landed
from twinrun.grafting.layer import Exporting, Layer
from twinrun.grafting.outlet import Buffer
from twinrun.grafting.packing import Flat, NoRoom
from twinrun.grafting.reference import Opening, Reference, Segment
from twinrun.grafting.tile import Tile

LEAST_GIFT_BYTES = 8 << 20
"""Smaller payloads are copied out of their pad: a copy costs the device 5 us at most, other memory for the
pad costs the processor 30. Where sender and receiver share a GPU even the smallest copy waits for this
process's turn on it, 0.1 ms, and everything is a gift."""

_forsaken: list[tuple[Exporting, Export]] = []
"""Pads whose sender went without a word: its device may still write there, until this process ends."""


@dataclass(slots=True)
class Pad:
    """One pad: its memory, and how often it was freed.

    ``full`` while a payload in it is being read; ``user``: the stream that read it last.
    """

    number: int
    nbytes: int
    export: Export
    times: int
    full: bool = False
    user: int = -1
    flat: Flat | None = None
    share: Share | None = None
    frame: Frame | None = None

    def move(self, export: Export) -> None:
        """It lies elsewhere from now on."""
        self.export, self.user, self.flat = export, -1, None


class Landing:
    """The memory that this process has opened to one sender, on one of its own devices.

    All landings of a process share ``budget``. ``shared``: the sender uses the same GPU. ``tell`` sends
    the sender a segment before a pad lies in it. Thread-safe, but for the payloads.
    """

    def __init__(
        self,
        layer: Layer,
        device: torch.device,
        board: Board,
        budget: Buffer,
        shared: bool,
        tell: Callable[[Segment], None],
        who: str,
        check: Callable[[], None],
        timeout_s: float,
    ) -> None:
        self._layer, self.device, self.board = layer, device, board
        self.exporter = layer.exporter(device, budget.limit_bytes)
        self._budget, self._tell = budget, tell
        self.least_gift_bytes = 0 if shared else LEAST_GIFT_BYTES
        self._post = layer.post(board, device)
        self.who, self.check, self.timeout_s = who, check, timeout_s
        self._pads: dict[int, Pad] = {}
        self._times = [0] * PADS
        self._segments: dict[int, int] = {}
        """base -> number"""
        self._told = 0

    # --- room ------------------------------------------------------------------------------

    def open(self, nbytes: int, share: Share | None = None) -> Opening | None:
        """A new pad for payloads of a size, None while there is no room; NoRoom where there never will be.

        ``share``: it stands for this part of a frame.
        """
        if nbytes <= 0:
            raise PeerError(f"{self.who} asks for room for {nbytes} bytes")
        if nbytes > self._budget.limit_bytes:
            raise NoRoom(
                f"its {nbytes / 2**20:.1f} MiB are more than the {self._budget.limit_bytes >> 20} MiB "
                "that --graft-buffer allows"
            )
        with HANDS:
            number = next((n for n in range(PADS) if n not in self._pads), None)
            if number is None or not self._budget.take(nbytes):
                return None
            try:
                frame = None if share is None else share.tiling.join(self)
                export = (
                    self.exporter.export((nbytes,), torch.uint8) if frame is None else frame.export
                )
            except UnavailableError as error:
                self._budget.free(nbytes)
                raise NoRoom(
                    f"no memory on the receiver's GPU: {error.seen or error.summary}"
                ) from None
            pad = Pad(number, nbytes, export, self._times[number], share=share)
            self._pads[number] = pad
            if frame is not None:
                frame.enter(self, pad)
            self._free(pad)
            return Opening(number, pad.times)

    def drop(self, numbers: Sequence[int]) -> None:
        """Pads that the sender uses no more."""
        with HANDS:
            for number in numbers:
                pad = self._pads.get(number)
                if pad is None or pad.full:
                    raise PeerError(f"{self.who} gives back what it does not have")
                self._close(pad)

    def _free(self, pad: Pad) -> None:
        """Let the sender use a pad, whose memory nothing here uses any more."""
        export = pad.export
        if export.base not in self._segments:
            self._segments[export.base] = self._told
            self._told += 1
            self._tell(Segment(self._segments[export.base], export.extent, export.handle))
        self._free_at(pad, self._segments[export.base], export.address - export.base)

    def _free_at(self, pad: Pad, segment: int, offset: int) -> None:
        self.board.put(pad.number, segment, offset)
        self._count(pad)
        self.board.store(free_index(pad.number), pad.times)

    def _count(self, pad: Pad) -> None:
        pad.times += 1
        self._times[pad.number] = pad.times
        pad.full = False

    def _close(self, pad: Pad) -> None:
        del self._pads[pad.number]
        self._budget.free(pad.nbytes)
        if pad.frame is not None:
            pad.frame.leave(self)
            return
        if not pad.export.gift:  # the driver may put something else at the same address
            self._segments.pop(pad.export.base, None)
        self.exporter.free(pad.export)

    # --- payloads --------------------------------------------------------------------------

    def payload(self, reference: Reference) -> Landed:
        """What a reference refers to, checked to lie in a pad of this sender's."""
        pad = self._pads.get(reference.pad)
        if pad is None or pad.full:
            raise PeerError(f"{self.who} refers to memory that it was not given")
        if reference.nbytes > pad.nbytes:
            raise PeerError(
                f"{self.who} refers to bytes beyond its own pad",
                seen=f"{reference.nbytes} bytes",
                expected=f"at most {pad.nbytes} bytes",
            )
        pad.full = True
        if pad.share is None:
            return Landed(self, pad, reference)
        if reference.nbytes != pad.nbytes:
            raise PeerError(f"{self.who} filled a part of what it has to")
        return Tile(self, pad, reference, pad.share)

    def took(self, pad: Pad) -> None:
        """All of a pad was read, by work in the current stream."""
        # The word says that the copies are done; torch, too, must know of them when the pad goes.
        if pad.export.gift:
            pad.user = self.exporter.used(pad.export, pad.user)
        self._count(pad)
        self._post.write(free_index(pad.number), pad.times)

    def give(self, pad: Pad, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """All of a pad's memory as a tensor that the caller owns; the sender gets other memory at once."""
        made = pad.export.given(shape, dtype)
        self.exporter.used(pad.export, pad.user)
        with HANDS:
            try:
                # The old memory is torch's again when all who use it are done.
                export = self.exporter.export(shape, dtype)
            except UnavailableError:
                self.lose(pad)
            else:
                self.move(pad, export)
        return made

    def move(self, pad: Pad, export: Export) -> None:
        """Free a pad elsewhere."""
        pad.move(export)
        self._free(pad)

    def lose(self, pad: Pad) -> None:
        """A pad is no more, and its sender is told so."""
        self._close(pad)
        self._free_at(pad, GONE, 0)

    def settle(self, pad: Pad, frame: Frame) -> None:
        """All of a pad was read, as in ``took``; it is free at once, as a part of another frame."""
        self.exporter.used(pad.export, pad.user)
        with HANDS:
            if pad.frame is not None:
                pad.frame.leave(self)
            frame.enter(self, pad)
            self.move(pad, frame.export)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Copy from a pad to this device's memory; PeerError where the device cannot."""
        try:
            self._layer.copy(self.device, to, source, nbytes)
        except UnavailableError as error:
            raise PeerError(
                f"what {self.who} sent cannot be copied: {error.seen or error.summary}"
            ) from None

    def close(self, *, left: bool) -> None:
        """Give all pads back; where the sender has not ``left`` them, not before this process ends."""
        with HANDS:
            for pad in list(self._pads.values()):
                if left:
                    self._close(pad)
                    continue
                self._budget.free(pad.nbytes)
                _forsaken.append((self.exporter, pad.export))
                if pad.frame is not None:
                    pad.frame.leave(self)
            self._pads.clear()
        self.board.close()
