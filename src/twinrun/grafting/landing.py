"""The receiving half of a direct channel: pads that one sender writes to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from twinrun.errors import PeerError, UnavailableError
from twinrun.grafting.board import GONE, PADS, Board, free_index
from twinrun.grafting.exporting import Export
from twinrun.grafting.landed import Landed
from twinrun.grafting.layer import Exporting, Layer
from twinrun.grafting.outlet import Buffer
from twinrun.grafting.packing import Flat, NoRoom
from twinrun.grafting.reference import Opening, Reference, Segment

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
        self._exporter = layer.exporter(device, budget.limit_bytes)
        self._budget, self._tell = budget, tell
        self.least_gift_bytes = 0 if shared else LEAST_GIFT_BYTES
        self._post = layer.post(board, device)
        self.who, self.check, self.timeout_s = who, check, timeout_s
        self._pads: dict[int, Pad] = {}
        self._times = [0] * PADS
        self._segments: dict[int, int] = {}
        """base -> number"""
        self._told = 0
        self._lock = threading.RLock()

    # --- room ------------------------------------------------------------------------------

    def open(self, nbytes: int) -> Opening | None:
        """A new pad for payloads of a size, None while there is no room; NoRoom where there never will be."""
        if nbytes <= 0:
            raise PeerError(f"{self.who} asks for room for {nbytes} bytes")
        if nbytes > self._budget.limit_bytes:
            raise NoRoom(
                f"its {nbytes / 2**20:.1f} MiB are more than the {self._budget.limit_bytes >> 20} MiB "
                "that --graft-buffer allows"
            )
        with self._lock:
            number = next((n for n in range(PADS) if n not in self._pads), None)
            if number is None or not self._budget.take(nbytes):
                return None
            try:
                export = self._exporter.export(nbytes)
            except UnavailableError as error:
                self._budget.free(nbytes)
                raise NoRoom(
                    f"no memory on the receiver's GPU: {error.seen or error.summary}"
                ) from None
            pad = self._pads[number] = Pad(number, nbytes, export, self._times[number])
            self._free(pad)
            return Opening(number, pad.times)

    def drop(self, numbers: Sequence[int]) -> None:
        """Pads that the sender uses no more."""
        with self._lock:
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
        self._free_at(pad, self._segments[export.base], export.raw.data_ptr() - export.base)

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
        if not pad.export.gift:  # the driver may put something else at the same address
            self._segments.pop(pad.export.base, None)
        self._exporter.free(pad.export)

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
        return Landed(self, pad, reference)

    def took(self, pad: Pad, *, given: bool) -> None:
        """All of a pad was read, by work in the current stream, or its memory was ``given`` away."""
        if not given:
            # The word says that the copies are done; torch, too, must know of them when the pad goes.
            if pad.export.gift:
                pad.user = self._exporter.used(pad.export.raw, pad.user)
            self._count(pad)
            self._post.write(free_index(pad.number), pad.times)
            return
        with self._lock:
            try:
                # Other memory at once: the old one is torch's again when all who use it are done.
                pad.move(self._exporter.export(pad.nbytes))
            except UnavailableError:
                self._close(pad)
                self._free_at(pad, GONE, 0)
                return
            self._free(pad)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Copy from a pad to this device's memory; PeerError where the device cannot."""
        try:
            self._layer.copy(self.device, to, source, nbytes)
        except UnavailableError as error:
            raise PeerError(
                f"what {self.who} sent cannot be copied: {error.seen or error.summary}"
            ) from None

    def use(self, pad: Pad) -> torch.UntypedStorage:
        """The memory of a pad, for the current stream and whatever comes after it."""
        self._exporter.used(pad.export.raw, pad.user)
        return pad.export.raw.untyped_storage()

    def close(self, *, left: bool) -> None:
        """Give all pads back; where the sender has not ``left`` them, not before this process ends."""
        with self._lock:
            for pad in list(self._pads.values()):
                if left:
                    self._close(pad)
                else:
                    self._budget.free(pad.nbytes)
                    _forsaken.append((self._exporter, pad.export))
            self._pads.clear()
        self.board.close()
