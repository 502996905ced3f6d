"""The sending half of a direct channel: payloads packed into device memory that the peer has opened."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from twinrun.errors import PeerError, UnavailableError
from twinrun.grafting.board import SLOTS, Board, ready_index, ready_word
from twinrun.grafting.layer import Block, Layer, Post
from twinrun.grafting.outlet import GRACE_S, Buffer
from twinrun.grafting.patience import Patience
from twinrun.grafting.reference import CHUNK_BYTES, Card, Flat, Reference, pieces

LEAST_BYTES = 2 << 20
"""Smaller blocks would share the driver's pages, and so the peer's sight, with other memory."""

ALIGNMENT = 512
AT_ONCE, AT_ONCE_ON_ONE_GPU = 2, 8
"""Blocks of a size that come without waiting for the receiver.

Two processes on one GPU take turns on it, and every turn costs about 0.1 ms: values that wait in
several blocks are packed in one turn and taken in the next.
"""


class NoRoom(UnavailableError):
    """A payload cannot be staged on the device; the host takes it."""


@dataclass
class Held:
    """One block: the memory, how much of it is in use, and by how many messages."""

    number: int
    block: Block
    flat: Flat
    used: int = 0
    users: int = 0


class Stage:
    """Packs the payloads for one peer, on the program's own stream; never waits for the device.

    A block is used again once the receiver's copies from it are done, which the board says. All
    stages of a process share ``budget``. ``announce`` tells the peer of a new block before it is
    used; ``check`` raises when the peer has gone. Used by one thread at a time, but for ``released``.
    """

    def __init__(
        self,
        layer: Layer,
        device: torch.device,
        board: Board,
        budget: Buffer,
        announce: Callable[[Card], None],
        forget: Callable[[list[int]], None],
        check: Callable[[], None],
        timeout_s: float,
    ) -> None:
        self._layer, self.device, self._board = layer, device, board
        self._post: Post = layer.post(board, device)
        self._budget, self._announce, self._forget = budget, announce, forget
        self._check, self._timeout_s = check, timeout_s
        self.at_once = AT_ONCE
        self._held: list[Held] = []
        self._leaving: dict[int, Held] = {}
        self._lock = threading.Lock()
        self._flying: deque[tuple[int, int, Held]] = deque()
        self._blocks = 0
        self._next = 0

    def put(self, tensors: Sequence[torch.Tensor]) -> Reference:
        """Copy ``tensors`` (any strides, any device) one after the other; where they lie then.

        The copies run in the order of the current stream. NoRoom, PeerError.
        """
        total = 0
        for tensor in tensors:
            total += tensor.nbytes
        held, offset = self._room(total)
        number, self._next = self._next, self._next + 1
        done = told = 0
        for tensor in tensors:
            size = tensor.element_size()
            for piece in pieces(tensor, size):
                nbytes = piece.numel() * size
                if piece.is_contiguous() and piece.device == self.device:
                    here = held.flat.address + offset + done
                    self._layer.copy(self.device, here, piece.data_ptr(), nbytes)
                else:
                    pack(held.flat, offset + done, piece)
                done += nbytes
                if done == total or done - told >= CHUNK_BYTES:
                    told = done
                    self._post.write(ready_index(number), ready_word(number, done))
        held.users += 1
        self._flying.append((number, total, held))
        return Reference(held.number, offset, total, number)

    def busy(self) -> bool:
        """Whether something lies here that the peer has not taken."""
        self._reap()
        return bool(self._flying)

    def released(self, blocks: Sequence[int]) -> None:
        """The peer has closed these blocks: their memory goes back."""
        for number in blocks:
            with self._lock:
                held = self._leaving.pop(number, None)
            if held is not None:
                self._free(held)

    def leave(self, *, gone: bool) -> list[int]:
        """Begin to give everything back: the blocks that the peer must close first, none if it has gone."""
        self._reap()
        written = all(self._board.ready(number) == size for number, size, _ in self._flying)
        held, self._held = self._held, []
        self._flying.clear()
        if not gone:
            return self._dismiss(held)
        with self._lock:
            held += self._leaving.values()
            self._leaving.clear()
        # What the device may still be writing to is left to the end of the process.
        for block in held if written else ():
            self._free(block)
        return []

    def left(self) -> bool:
        """Whether the peer has closed every block that it was asked to."""
        return not self._leaving

    # --- room ------------------------------------------------------------------------------

    def _room(self, nbytes: int) -> tuple[Held, int]:
        size = block_bytes(nbytes)
        if size > self._budget.limit_bytes:
            raise NoRoom(
                f"it takes a block of {size >> 20} MiB, and --graft-buffer allows "
                f"{self._budget.limit_bytes >> 20} MiB"
            )
        patience = Patience(self._timeout_s, self._check)
        while True:
            self._reap()
            held = self._fit(nbytes, size)
            if held is None and self._may_grow(size, patience.waited_s):
                held = self._grow(size)
            if held is not None:
                offset = held.used
                held.used = -(-(offset + nbytes) // ALIGNMENT) * ALIGNMENT
                return held, offset
            if not patience.pause():
                raise PeerError(
                    f"nothing was taken for {self._timeout_s:g} s and the staging memory of the GPU is full"
                )

    def _fit(self, nbytes: int, size: int) -> Held | None:
        if len(self._flying) >= SLOTS:
            return None
        for held in self._held:
            if not held.users:
                held.used = 0
            if held.flat.nbytes == size and held.used + nbytes <= size:
                return held
        return None

    def _may_grow(self, size: int, waited_s: float) -> bool:
        """Some blocks of a size come at once; more only for a peer that stays away."""
        alike = sum(held.flat.nbytes == size for held in self._held)
        return len(self._flying) < SLOTS and (alike < self.at_once or waited_s > GRACE_S)

    def _grow(self, size: int) -> Held | None:
        if not self._budget.take(size):
            self._evict()
            return None
        try:
            block = self._layer.allocate(self.device, size)
        except UnavailableError as error:
            self._budget.free(size)
            raise NoRoom(f"no staging memory on the GPU: {error.seen or error.summary}") from None
        flat = Flat(self._layer.flat(self.device, block.address, size))
        held = Held(self._blocks, block, flat)
        self._blocks += 1
        self._announce(Card(held.number, size, block.handle))
        self._held.append(held)
        return held

    def _evict(self) -> None:
        idle = [held for held in self._held if not held.users]
        self._held = [held for held in self._held if held.users]
        if idle:
            self._forget(self._dismiss(idle))

    def _dismiss(self, idle: list[Held]) -> list[int]:
        with self._lock:
            self._leaving.update({held.number: held for held in idle})
        return [held.number for held in idle]

    def _reap(self) -> None:
        while self._flying and self._board.taken(self._flying[0][0]):
            _, _, held = self._flying.popleft()
            held.users -= 1

    def _free(self, held: Held) -> None:
        self._budget.free(held.flat.nbytes)
        self._layer.free(self.device, held.block)


def block_bytes(nbytes: int) -> int:
    """The size of block for a payload: at most a quarter more than it, few different ones."""
    step = max(LEAST_BYTES, 1 << max(0, (max(nbytes, 1) - 1).bit_length() - 2))
    return max(LEAST_BYTES, -(-nbytes // step) * step)


def pack(flat: Flat, offset: int, piece: torch.Tensor) -> None:
    """Copy ``piece`` to the bytes of ``flat`` from ``offset`` on, in row-major order."""
    there = flat.view(offset, piece.dtype, tuple(piece.shape))
    if there is not None:
        there.copy_(piece)
        return
    raw = piece.contiguous().reshape(-1).view(torch.uint8)
    flat.raw[offset : offset + raw.numel()].copy_(raw)
