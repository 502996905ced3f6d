"""Payloads between two GPUs through NCCL: sent when the receiver asks, so that no kernel waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from twinrun.errors import PeerError, UnavailableError
from twinrun.grafting.lane import Job, Lane
from twinrun.grafting.nccl import Communicator
from twinrun.grafting.outlet import Buffer
from twinrun.grafting.packing import Flat, NoRoom, pack
from twinrun.grafting.patience import Patience

Tell = Callable[[dict[str, Any]], None]


class Pair:
    """One direction between two processes, with a communicator and a thread of its own.

    ``check`` raises when the peer has gone. A peer that dies ends what is under way (``abort``).
    """

    def __init__(self, device: torch.device, who: str, check: Callable[[], None], timeout_s: float):
        self.device, self.who = device, who
        self.check, self.timeout_s = check, timeout_s
        self.lane = Lane("twinrun-graft-nccl")
        self._communicator: Communicator | None = None

    def meet(self, token: bytes, rank: int) -> Job:
        """Begin to make the communicator; the job ends once both sides have come."""
        return self.lane.do(lambda: self._meet(token, rank))

    def _meet(self, token: bytes, rank: int) -> None:
        self._communicator = Communicator(self.device, token, rank)

    @property
    def communicator(self) -> Communicator:
        if self._communicator is None:
            raise UnavailableError("the NCCL communicator was never made")
        return self._communicator

    def abort(self) -> None:
        """End what is under way; nothing can be sent afterwards."""
        if self._communicator is not None:
            self._communicator.abort()
        self.lane.end()


class PairStage:
    """The sending half: packed copies that wait until the receiver asks for them."""

    def __init__(self, pair: Pair, budget: Buffer) -> None:
        self.pair = pair
        self._budget = budget
        self._waiting: dict[int, tuple[torch.Tensor, torch.cuda.Event]] = {}
        self._lock = threading.Lock()
        self._next = 0

    def put(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        """Copy ``tensors``, in the order of the current stream; number and bytes. NoRoom, PeerError."""
        total = sum(t.numel() * t.element_size() for t in tensors)
        self._reserve(total)
        with torch.cuda.device(self.pair.device):
            try:
                flat = torch.empty(total, dtype=torch.uint8, device=self.pair.device)
            except torch.cuda.OutOfMemoryError:
                self._budget.free(total)
                raise NoRoom("no staging memory on the GPU") from None
            at, packing = 0, Flat(flat)
            for tensor in tensors:
                pack(packing, at, tensor)
                at += tensor.numel() * tensor.element_size()
            packed = torch.cuda.Event()  # type: ignore[no-untyped-call]
            packed.record()
        number, self._next = self._next, self._next + 1
        with self._lock:
            self._waiting[number] = (flat, packed)
        return [number, total]

    def go(self, number: int) -> None:
        """The receiver asks for a payload and has begun to receive it."""
        self.pair.lane.do(lambda: self._send(number))

    def busy(self) -> bool:
        """Whether something waits that the peer has not asked for, or has not got yet."""
        return bool(self._waiting)

    def _send(self, number: int) -> None:
        flat, packed = self._waiting[number]
        try:
            communicator = self.pair.communicator
            communicator.stream.wait_event(packed)
            communicator.send(flat)
            communicator.stream.synchronize()
        finally:
            with self._lock:
                del self._waiting[number]
            self._budget.free(flat.numel())

    def _reserve(self, nbytes: int) -> None:
        if nbytes > self._budget.limit_bytes:
            raise NoRoom(f"its {nbytes >> 20} MiB are more than --graft-buffer allows")
        patience = Patience(self.pair.timeout_s, self.pair.check)
        while not self._budget.take(nbytes):
            if not patience.pause():
                raise PeerError(
                    f"nothing was taken for {self.pair.timeout_s:g} s and --graft-buffer is full"
                )


class PairPayload:
    """One payload that the sender keeps until it is asked for; received whole, before it is read."""

    def __init__(self, pair: Pair, tell: Tell, number: int, nbytes: int) -> None:
        self._pair, self._tell = pair, tell
        self._number, self._nbytes = number, nbytes
        self._flat: torch.Tensor | None = None
        self._at = 0
        self.device = pair.device

    @property
    def left(self) -> int:
        return self._nbytes - self._at

    def read_tensor(self, into: torch.Tensor, dtype: torch.dtype, *, add: bool = False) -> None:
        """As ``Landed.read_tensor``."""
        nbytes = into.numel() * dtype.itemsize
        if nbytes > self.left:
            raise PeerError(f"{self._pair.who} sent fewer bytes than its message needs")
        flat, at = self._received(), self._at
        self._at += nbytes
        shape, there = tuple(into.shape), Flat(flat)
        source = there.view(at, dtype, shape)
        if source is None:
            source = there.copied(at, dtype, shape)
        into.add_(source.to(into.device)) if add else into.copy_(source)

    def gift(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """As ``Landed.gift``."""
        return None

    def hold(self) -> None:
        """As ``Landed.hold``."""

    def read_all(self) -> torch.Tensor:
        """The whole payload as bytes, in memory of its own."""
        self._at = self._nbytes
        return self._received()

    def _received(self) -> torch.Tensor:
        """The bytes, waited for by the processor, so that no kernel hangs in the program's stream."""
        if self._flat is None:
            pair = self._pair
            with torch.cuda.device(pair.device):
                flat = torch.empty(self._nbytes, dtype=torch.uint8, device=pair.device)
                made = torch.cuda.Event()  # type: ignore[no-untyped-call]
                made.record()
            job = pair.lane.do(lambda: _receive(pair, flat, made))
            self._tell({"t": "go", "number": self._number})
            try:
                job.wait(pair.timeout_s, pair.check, f"receiving from {pair.who} through NCCL")
            except UnavailableError as error:
                raise PeerError(f"{pair.who} cannot be heard through NCCL: {error}") from None
            except PeerError:
                pair.abort()
                raise
            self._flat = flat
        return self._flat


def _receive(pair: Pair, flat: torch.Tensor, made: torch.cuda.Event) -> None:
    communicator = pair.communicator
    communicator.stream.wait_event(made)
    communicator.receive(flat)
    communicator.stream.synchronize()
    trouble = communicator.trouble()
    if trouble:
        raise UnavailableError("NCCL gave up", seen=trouble)
