"""One peer's GPU tensors to this process: its questions answered, its memory opened, its payloads found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from twinrun.errors import PeerError, TwinrunError, UnavailableError
from twinrun.grafting import nccl
from twinrun.grafting.board import Board
from twinrun.grafting.direct import Desk
from twinrun.grafting.landing import Landing
from twinrun.grafting.layer import Layer
from twinrun.grafting.pair import Pair, PairPayload
from twinrun.grafting.reference import Card, Reference, numbers
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read

_TRIAL_S = 10.0
"""How long a peer's GPU may take to write a few bytes; this process hears nobody meanwhile."""


class Answering:
    """The receiving end of one peer's direct channels. Questions are answered on the roster's thread."""

    def __init__(self, layer: Layer | None, desk: Desk, *, who: str, timeout_s: float) -> None:
        self._layer, self._desk = layer, desk
        self._who, self._timeout_s = who, timeout_s
        self._landing: Landing | None = None
        self._pair: Pair | None = None

    def heard(self, header: Header, take_fd: Callable[[], int]) -> None:
        """A question of the peer."""
        kind = header["t"]
        if kind == "ask":
            self._asked(header, take_fd)
        elif kind == "nccl":
            self._invited(header)
        elif self._landing is not None:
            blocks = read(header, "blocks", list, self._who)
            self._landing.forget(blocks)
            # Who asked may have left without waiting for this.
            with contextlib.suppress(PeerError):
                self._desk.tell({"t": "unmapped", "blocks": blocks})

    def define(self, header: Header) -> bool:
        """Whether this message only describes a block; it is opened then."""
        if "card" not in header:
            return False
        self._landed().define(Card.read(header["card"], self._who))
        return True

    def payload(self, header: Header) -> Any:
        """What a message refers to, None where its payload follows it."""
        if "g" in header:
            return self._landed().payload(Reference.read(header["g"], self._who))
        if "pair" in header:
            number, nbytes = numbers(header["pair"], self._who)
            if self._pair is None:
                raise PeerError(f"{self._who} sends through NCCL without having met")
            return PairPayload(self._pair, self._desk.tell, number, nbytes)
        return None

    def lost(self) -> None:
        """The peer has gone: nothing may wait for it on the GPU."""
        if self._pair is not None:
            self._pair.abort()

    def close(self) -> None:
        """Close what was opened."""
        self.lost()
        landing, self._landing = self._landing, None
        if landing is not None:
            landing.close()

    def _landed(self) -> Landing:
        if self._landing is None:
            raise PeerError(f"{self._who} refers to memory of a GPU that it has not shown")
        return self._landing

    def _asked(self, header: Header, take_fd: Callable[[], int]) -> None:
        device = self._layer.device() if self._layer is not None else None
        told = {"t": "told", "gpu": "", "nccl": "", "ipc": ""}
        if self._layer is not None and device is not None:
            told |= {"gpu": self._layer.identity(device), "nccl": nccl.version()}
        if "card" in header:
            board = Board.open(take_fd())
            told["ipc"] = self._opened(header, board, device)
        self._desk.tell(told)

    def _opened(self, header: Header, board: Board, device: torch.device | None) -> str:
        """Open the peer's first block and read the pattern in it; why that failed, "" where it did not."""
        if self._layer is None or device is None:
            board.close()
            return "the receiver uses no GPU"
        landing = None
        try:
            with self._layer.apart(device):
                landing = Landing(self._layer, device, board, self._who, self._desk.check, _TRIAL_S)
                landing.define(Card.read(header["card"], self._who))
                reference = Reference.read(header["g"], self._who)
                found = bytes(landing.payload(reference).read_all().tolist())
            if found != bytes.fromhex(read(header, "pattern", str, self._who)):
                raise UnavailableError(
                    "what was read from the peer's memory is not what lies there"
                )
        except (TwinrunError, RuntimeError, ValueError) as error:
            if landing is not None:
                landing.close()
            return str(getattr(error, "summary", error)).splitlines()[0]
        if self._landing is not None:
            raise PeerError(f"{self._who} showed its GPU twice")
        landing.timeout_s = self._timeout_s
        self._landing = landing
        return ""

    def _invited(self, header: Header) -> None:
        device = self._layer.device() if self._layer is not None else None
        token = bytes.fromhex(read(header, "id", str, self._who))
        if device is None or len(token) != nccl.ID_BYTES or self._pair is not None:
            raise PeerError(f"{self._who} invites to an NCCL communicator that cannot be made")
        self._pair = pair = Pair(device, self._who, self._desk.check, self._timeout_s)
        met = pair.meet(token, 1)

        def answer() -> None:
            why = str(getattr(met.error, "seen", None) or met.error or "")
            self._desk.tell({"t": "met", "why": why})

        pair.lane.do(answer)
