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
from twinrun.grafting.frame import Share
from twinrun.grafting.landing import Landing
from twinrun.grafting.layer import Layer
from twinrun.grafting.outlet import Buffer
from twinrun.grafting.packing import NoRoom
from twinrun.grafting.pair import Pair, PairPayload
from twinrun.grafting.patience import Patience
from twinrun.grafting.reference import Reference, Segment, numbers
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read

_END_S = 2.0
_TRIAL_S = 10.0
"""How long a peer's GPU may take to write a few bytes; this process hears nobody meanwhile."""


class Answering:
    """The receiving end of one peer's direct channels. Questions are answered on the roster's thread."""

    def __init__(
        self, layer: Layer | None, desk: Desk, budget: Buffer, *, who: str, timeout_s: float
    ) -> None:
        self._layer, self._desk, self._budget = layer, desk, budget
        self._who, self._timeout_s = who, timeout_s
        self._landing: Landing | None = None
        self._pair: Pair | None = None
        self._shares: dict[int, Share] = {}
        self._left = self._gone = False

    def expect(self, share: Share) -> None:
        """The peer may put these boxes into their places at once."""
        self._shares[share.tiling.number] = share

    def heard(self, header: Header, take_fd: Callable[[], int]) -> None:
        """A question of the peer."""
        kind = header["t"]
        if kind == "ask":
            self._asked(header, take_fd)
        elif kind == "prove":
            self._desk.tell({"t": "proven", "ipc": self._proven(header)})
        elif kind == "room":
            self._desk.tell({"t": "pad", **self._room(header)})
        elif kind == "drop":
            self._landed().drop(read(header, "pads", list, self._who))
        elif kind == "left":
            self._left = True
        else:
            self._invited(header)

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
        self._gone = True
        if self._pair is not None:
            self._pair.abort()

    def leave(self) -> None:
        """Have the peer write nothing more to this GPU, while it can still be heard."""
        if self._landing is None or self._gone or self._left:
            return
        # Where the peer cannot be told it has just gone, and its own word of it may be on the way.
        with contextlib.suppress(TwinrunError):
            self._desk.tell({"t": "closing"})
        patience = Patience(_END_S, lambda: None)
        while not self._left and not self._gone and patience.pause():
            pass

    def close(self) -> None:
        """Give back what the peer could write to."""
        self.lost()
        landing, self._landing = self._landing, None
        if landing is not None:
            landing.close(left=self._left)

    def _landed(self) -> Landing:
        if self._landing is None:
            raise PeerError(f"{self._who} refers to memory of a GPU that it was not given")
        return self._landing

    def _asked(self, header: Header, take_fd: Callable[[], int]) -> None:
        device = self._layer.device() if self._layer is not None else None
        told = {"t": "told", "gpu": "", "nccl": "", "ipc": ""}
        if self._layer is not None and device is not None:
            told |= {"gpu": self._layer.identity(device), "nccl": nccl.version()}
        if "board" in header:
            shared = told["gpu"] == read(header, "gpu", str, self._who)
            told["ipc"] = self._opened(Board.open(take_fd()), device, shared)
        self._desk.tell(told)

    def _opened(self, board: Board, device: torch.device | None, shared: bool) -> str:
        """Begin to land what the peer sends; why that cannot be, "" where it can."""
        if self._landing is not None:
            raise PeerError(f"{self._who} showed its board twice")
        if self._layer is None or device is None:
            board.close()
            return "the receiver uses no GPU"

        def tell(segment: Segment) -> None:
            self._desk.tell({"t": "segment", "what": segment.as_json()})

        self._landing = Landing(
            self._layer, device, board, self._budget, shared, tell, self._who, self._desk.check,
            _TRIAL_S,
        )  # fmt: skip
        return ""

    def _room(self, header: Header) -> dict[str, Any]:
        nbytes, share = read(header, "nbytes", int, self._who), None
        if "tiling" in header:
            share = self._shares.get(read(header, "tiling", int, self._who))
            if share is None or share.nbytes != nbytes:
                raise PeerError(f"{self._who} asks for room for boxes that it was not asked for")
        try:
            opening = self._landed().open(nbytes, share)
        except NoRoom as error:
            return {"why": str(error.summary)}
        return {"pad": None if opening is None else opening.as_json()}

    def _proven(self, header: Header) -> str:
        """Read the peer's pattern in the memory that it was given; why that failed, "" where it did not."""
        landing = self._landed()
        assert self._layer is not None
        try:
            with self._layer.apart(landing.device):
                reference = Reference.read(header["g"], self._who)
                found = bytes(landing.payload(reference).read_all().tolist())
            if found != bytes.fromhex(read(header, "pattern", str, self._who)):
                raise UnavailableError("what was written to this GPU is not what lies there")
        except (TwinrunError, RuntimeError, ValueError) as error:
            return str(getattr(error, "summary", error)).splitlines()[0]
        landing.timeout_s = self._timeout_s
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
