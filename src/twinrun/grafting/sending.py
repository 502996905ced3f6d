"""This process's GPU tensors to one peer: agreeing on a channel, and what then goes over it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from typing import Any

import torch

from twinrun.errors import PeerError, TwinrunError, UnavailableError
from twinrun.grafting import nccl
from twinrun.grafting.board import Board
from twinrun.grafting.choice import HOST, IPC, NCCL, End, against_ipc, against_nccl, described
from twinrun.grafting.direct import Desk
from twinrun.grafting.inside import Inside
from twinrun.grafting.layer import Layer
from twinrun.grafting.message import Message
from twinrun.grafting.outlet import Buffer
from twinrun.grafting.packing import NoRoom
from twinrun.grafting.pair import Pair, PairStage
from twinrun.grafting.patience import Patience
from twinrun.grafting.pushing import Push
from twinrun.grafting.reference import Opening, Segment
from twinrun.grafting.rooms import Rooms
from twinrun.grafting.wire import Header
from twinrun.grafting.wire import field as read

ANSWER_S = 60.0
_PATTERN_BYTES = 64


class Sending:
    """This process's GPU tensors to one peer: the channel is agreed on when it is first needed."""

    def __init__(
        self, layer: Layer, desk: Desk, budget: Buffer, *,
        who: str, local: bool, wanted: str, through: str, timeout_s: float,
    ) -> None:  # fmt: skip
        self._layer, self._desk, self._budget = layer, desk, budget
        self._who, self._local, self._wanted = who, local, wanted
        self._through, self._timeout_s = through, timeout_s
        self._agreed_at = -1
        self._final = False
        self._channel = HOST
        self._reasons: dict[str, str] = {}
        self._told = ""
        self._push: Push | None = None
        self._pair: PairStage | None = None
        self._answers: dict[str, Header] = {}
        self.over = ""
        """the channel of the last message and its reason, "" where no GPU was concerned"""

    def message(
        self,
        header: str,
        tensors: Sequence[torch.Tensor],
        orders: int,
        inside: Inside | None = None,
    ) -> tuple[Message, int] | None:
        """A message that refers to ``tensors``, copied by the GPU to where the peer finds them, and their bytes.

        ``header``: JSON. None where they go through the host. ``orders``: how many orders the peer has sent; where it
        used no GPU so far, it is asked again when there are more. ``inside``: where they go at the peer.
        """
        mine, nbytes = None, 0
        for tensor in tensors:
            nbytes += tensor.nbytes
            if mine is None and self._layer.owns(tensor):
                mine = tensor.device
        if mine is None or not nbytes:
            self.over = ""
            return None
        if self._agreed_at != orders and not self._final:
            self._agreed_at = orders
            self._agree(mine)
            self._told = described(self._channel, self._reasons, self._through)
        self.over = self._told
        try:
            referred = self._put(tensors, inside)
        except NoRoom as error:
            self.over = described(HOST, {**self._reasons, self._channel: str(error)}, self._through)
            return None
        return None if referred is None else (Message(f"{header[:-1]},{referred}}}"), nbytes)

    def _put(self, tensors: Sequence[torch.Tensor], inside: Inside | None) -> str | None:
        """Where the payload lies, as one more field of the header."""
        if self._push is not None:
            return f'"g":{self._push.put(tensors, inside).as_json()}'
        return None if self._pair is None else f'"pair":{self._pair.put(tensors)}'

    def heard(self, header: Header) -> None:
        """An answer of the peer."""
        kind = header["t"]
        if kind == "go" and self._pair is not None:
            self._pair.go(read(header, "number", int, self._who))
        elif kind == "segment" and self._push is not None:
            self._push.know(Segment.read(header.get("what"), self._who))
        elif kind == "closing":
            self._leave()
        else:
            self._answers[kind] = header

    def busy(self) -> bool:
        """Whether the peer has yet to take something from this GPU."""
        return any(half is not None and half.busy() for half in (self._push, self._pair))

    def lost(self) -> None:
        """The peer has gone: nothing may wait for it on the GPU."""
        if self._pair is not None:
            self._pair.pair.abort()

    def close(self, *, gone: bool) -> None:
        """Write nothing more to the peer's memory, and tell it so."""
        if self._pair is not None:
            self._pair.pair.abort()
        if not gone:
            self._leave()

    def _leave(self) -> None:
        if self._push is not None and self._push.leave():
            with contextlib.suppress(TwinrunError):
                self._desk.tell({"t": "left"})

    # --- agreeing --------------------------------------------------------------------------

    def _agree(self, device: torch.device) -> None:
        self._reasons = {IPC: against_ipc(self._wanted, self._local)}
        if self._wanted == "host":
            self._final = True
            return
        self._reasons[IPC], told = self._trial(device, self._reasons[IPC])
        mine = End(self._layer.identity(device), nccl.version())
        theirs = End(read(told, "gpu", str), read(told, "nccl", str))
        if self._push is not None and not self._reasons[IPC]:
            self._channel, self._final = IPC, True
            return
        self._push = None
        self._final = bool(theirs.gpu)
        self._reasons[NCCL] = against_nccl(mine, theirs, self._wanted) or self._meet(device)
        self._channel = HOST if self._reasons[NCCL] else NCCL

    def _trial(self, device: torch.device, against: str) -> tuple[str, Header]:
        """Ask the peer what it can do, and write a pattern to its GPU: why CUDA IPC will not do, its answer."""
        if against:
            return against, self._ask({"t": "ask"}, "told")
        board = Board.create()
        asked = {"t": "ask", "board": True, "gpu": self._layer.identity(device)}
        told = self._ask(asked, "told", board.fd)
        trouble: str = read(told, "ipc", str)
        if not trouble:
            rooms = Rooms(
                self._layer, device, board, self._room,
                lambda pads: self._desk.tell({"t": "drop", "pads": pads}),
                self._desk.check, self._timeout_s,
            )  # fmt: skip
            self._push = Push(self._layer, device, board, rooms)
            trouble = self._proven(device)
            if trouble:
                self._leave()
        return trouble, told

    def _proven(self, device: torch.device) -> str:
        pattern = secrets.token_bytes(_PATTERN_BYTES)
        assert self._push is not None
        try:
            with self._layer.apart(device):
                held = torch.tensor(list(pattern), dtype=torch.uint8, device=device)
                put = self._push.put([held])
        except UnavailableError as error:
            return str(error.seen or error.summary)
        proof = {"t": "prove", "g": put.as_json(), "pattern": pattern.hex()}
        why: str = read(self._ask(proof, "proven"), "ipc", str)
        return why

    def _room(self, nbytes: int, tiling: int | None) -> Opening | None:
        """A pad of the peer's for payloads of a size, or for this process's boxes of a tiling."""
        wanted = {} if tiling is None else {"tiling": tiling}
        told = self._ask({"t": "room", "nbytes": nbytes, **wanted}, "pad")
        if "why" in told:
            raise NoRoom(read(told, "why", str, self._who))
        body = told.get("pad")
        return None if body is None else Opening.read(body, self._who)

    def _meet(self, device: torch.device) -> str:
        """Make an NCCL communicator with the peer; why that failed, "" where it did not."""
        pair = Pair(device, self._who, self._desk.check, self._timeout_s)
        try:
            token = nccl.unique_id()
            job = pair.meet(token, 0)
            told = self._ask({"t": "nccl", "id": token.hex()}, "met")
            trouble: str = read(told, "why", str)
            if not trouble:
                job.wait(ANSWER_S, self._desk.check, "making an NCCL communicator")
        except UnavailableError as error:
            trouble = str(error.seen or error.summary)
        if not trouble:
            self._pair = PairStage(pair, self._budget)
        return trouble

    def _ask(self, question: dict[str, Any], answer: str, fd: int | None = None) -> Header:
        self._answers.pop(answer, None)
        self._desk.tell(question, fd)
        patience = Patience(max(ANSWER_S, self._timeout_s), self._desk.check)
        while answer not in self._answers:
            if not patience.pause():
                raise PeerError(f"{self._who} does not answer about its GPU")
        return self._answers[answer]
