"""All-reduce between CPU ranks of one host, in a stated order, with the same bits on every rank.

Memory: for each pair of ranks a semaphore that counts what the first told the second; two slots a
rank and two results, used in turn. A *step* ends with every rank telling every other and hearing
from every other, so that whatever came before it on any rank is seen after it on all.

A small tensor, and any between two ranks, takes one step a chunk: each rank writes its own to its slot;
after the step each sums all slots. A larger one of more ranks goes in chunks: each rank sums its own slice of a chunk into the result and writes
its next chunk to the other slot; after the step all copy the result. One step a chunk and one more.

Why two of each suffice. Let ``s`` be the step after a slot is written. Where all sum it, it is read
between ``s`` and ``s+1``, so the next tensor takes the other slot, and this one is written again after
``s+1``, which no rank passes before all have read. Where each sums a slice, the slot is read before
its reader tells of the step after ``s``, so that it is free once that step is passed, which it is when
the tensor is done. A result written before step ``s`` is copied between ``s`` and ``s+1`` and written
again after ``s+1``.
"""

from __future__ import annotations

import os
from functools import partial

import torch
import torch.distributed as dist

from twinrun.collectives import semaphores
from twinrun.collectives.algorithm import Start
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import GroupFacts, Plan
from twinrun.collectives.segment import Segment
from twinrun.collectives.semaphores import SEMAPHORE_BYTES, Semaphores
from twinrun.collectives.sums import ordered_sum
from twinrun.env import variables as V
from twinrun.errors import PeerError, UnavailableError
from twinrun.topology.memory import shared_bytes

# Measured by benchmarks/shared_memory_all_reduce.py --chunks: every step costs more than what a
# smaller chunk gains in the cache. Up to SMALL_BYTES of all ranks together it is cheaper that each
# sums everything; for two ranks always, because half of it would have to be copied back.
CHUNK_BYTES = 4 << 20
SMALL_BYTES = 1 << 20
_LEAST_CHUNK = 64 << 10
_MOST_SEGMENT = 256 << 20
_PAGE = 4096
Pieces = list[tuple[torch.Tensor, torch.Tensor]]
_SPINS, _SPINS_CROWDED = 150, 20
_MOST_VIEWS = 512


def probe(device: torch.device) -> str | None:
    """Why this rank cannot share memory with others of its host, or None."""
    reason = semaphores.why_not()
    if reason is not None:
        return reason
    free = shared_bytes()
    return free.how if free.value is None else None


def make(
    group: dist.ProcessGroup, exchange: Exchange, facts: GroupFacts, device: torch.device
) -> SharedMemoryReducer:
    """A reducer of this group; ``UnavailableError`` where /dev/shm has no room for it."""
    free = min(found or 0 for found in exchange.gather_json(shared_bytes().value))
    chunk = chunk_bytes(facts.size, free)
    return SharedMemoryReducer(exchange, chunk, V.ALL_REDUCE_TIMEOUT_S.get())


def chunk_bytes(size: int, free: int) -> int:
    """The largest chunk, up to the measured best, that leaves half of the free memory alone."""
    most = min(free // 2, _MOST_SEGMENT) - size * size * SEMAPHORE_BYTES
    chunk = min(CHUNK_BYTES, most // (2 * size + 2)) // _PAGE * _PAGE
    if chunk < _LEAST_CHUNK:
        raise UnavailableError(
            "shared memory has too little room.",
            seen=f"{free} bytes free for {size} ranks",
            expected=f"at least {2 * _LEAST_CHUNK * (2 * size + 2)}",
            do="give the container more (--shm-size), or set TWINRUN_SHARED_MEMORY_ALL_REDUCE=0",
        )
    return chunk


class SharedMemoryReducer:
    """The ranks' slots, results and semaphores, and the steps they take together."""

    def __init__(self, exchange: Exchange, chunk: int, timeout_s: float) -> None:
        self.rank, self.size, self.chunk = exchange.rank, exchange.size, chunk
        self._ranks = exchange.ranks
        self._timeout_s = timeout_s
        self._signals = -(-self.size * self.size * SEMAPHORE_BYTES // _PAGE) * _PAGE
        self._segment = Segment(exchange, self._signals + (2 * self.size + 2) * chunk)
        crowded = self.size > len(os.sched_getaffinity(0))
        self._semaphores = Semaphores(self._segment.address, _SPINS_CROWDED if crowded else _SPINS)
        if self.rank == 0:
            self._semaphores.prepare(self.size * self.size)
        exchange.barrier()
        peers = [peer for peer in range(self.size) if peer != self.rank]
        self._tells = [self.rank * self.size + peer for peer in peers]
        self._hears = [(peer * self.size + self.rank, peer) for peer in peers]
        self._views: dict[tuple[int, torch.dtype, int], list[torch.Tensor]] = {}
        self._turn = 0
        self._broken = ""

    @property
    def workspace_bytes(self) -> int:
        """The shared segment, one for all ranks of the group."""
        return self._segment.nbytes

    def all_reduce(self, x: torch.Tensor, out: torch.Tensor, plan: Plan) -> None:
        if self._broken:
            raise PeerError(
                "this all-reduce broke off earlier and cannot go on.", seen=self._broken
            )
        flat, total = x.view(-1), out.view(-1)
        step = self.chunk // x.element_size()
        pieces = [(flat, total)]
        if x.numel() > step:
            pieces = list(zip(torch.split(flat, step), torch.split(total, step), strict=True))
        small = self.size == 2 or (x.nbytes * self.size <= SMALL_BYTES and len(pieces) == 1)
        sum_up = self._each_sums_all if small else self._each_sums_a_slice
        try:
            sum_up(pieces, x.nbytes, plan.order)
        except BaseException as error:
            # Halfway through, the ranks no longer agree on whose turn it is.
            self._broken = self._broken or f"{type(error).__name__} in the middle of a step"
            raise

    def starter(self, plan: Plan, dtype: torch.dtype, elements: int) -> Start:
        return partial(self.all_reduce, plan=plan)

    def _each_sums_all(self, pieces: Pieces, nbytes: int, order: str) -> None:
        for part, whole in pieces:
            slots = self._slots(self._turn, part.dtype, part.numel())
            slots[self.rank].copy_(part)
            self._step(nbytes)
            ordered_sum(slots, order, whole)
            self._turn = 1 - self._turn

    def _each_sums_a_slice(self, pieces: Pieces, nbytes: int, order: str) -> None:
        # The turn that is free now is free again at the end: keeping it keeps the cache warm.
        turn = self._turn
        self._write(turn, pieces[0][0])
        self._step(nbytes)
        for place, (part, whole) in enumerate(pieces, 1):
            self._reduce(turn, part, order)
            done = turn
            if place < len(pieces):
                turn = 1 - turn
                self._write(turn, pieces[place][0])
            self._step(nbytes)
            whole.copy_(self._result(done, part.dtype, part.numel()))

    def _write(self, turn: int, part: torch.Tensor) -> None:
        """Show this rank's chunk to the others, but for the slice that it sums itself."""
        begin, end = self._slice(part.numel())
        slot = self._slots(turn, part.dtype, part.numel())[self.rank]
        slot[:begin].copy_(part[:begin])
        slot[end:].copy_(part[end:])

    def _reduce(self, turn: int, part: torch.Tensor, order: str) -> None:
        begin, end = self._slice(part.numel())
        if begin == end:
            return
        slots = self._slots(turn, part.dtype, part.numel())
        parts = [slot[begin:end] for slot in slots]
        parts[self.rank] = part[begin:end]
        ordered_sum(parts, order, self._result(turn, part.dtype, part.numel())[begin:end])

    def _step(self, nbytes: int) -> None:
        for index in self._tells:
            self._semaphores.post(index)
        for index, peer in self._hears:
            if not self._semaphores.wait(index, self._timeout_s):
                raise self._missing(peer, nbytes)

    def _missing(self, peer: int, nbytes: int) -> PeerError:
        rank = self._ranks[peer]
        self._broken = f"rank {rank} had not arrived within {self._timeout_s:g} s"
        return PeerError(
            f"rank {rank} did not arrive at an all-reduce of {nbytes} bytes.",
            seen=f"rank {self._ranks[self.rank]} waited {self._timeout_s:g} s",
            expected=f"ranks {list(self._ranks)} in the same all-reduce",
            do=f"look at what rank {rank} does ({V.ALL_REDUCE_TIMEOUT_S.name} is how long to wait)",
        )

    def _slice(self, numel: int) -> tuple[int, int]:
        return numel * self.rank // self.size, numel * (self.rank + 1) // self.size

    def _slots(self, turn: int, dtype: torch.dtype, numel: int) -> list[torch.Tensor]:
        """Every rank's slot as a tensor; kept, since making views costs more than a small sum."""
        key = (turn, dtype, numel)
        found = self._views.get(key)
        if found is None:
            if len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            begins = [self._signals + (turn * self.size + r) * self.chunk for r in range(self.size)]
            found = [self._segment.view(dtype, begin, numel) for begin in begins]
            self._views[key] = found
        return found

    def _result(self, turn: int, dtype: torch.dtype, numel: int) -> torch.Tensor:
        begin = self._signals + (2 * self.size + turn) * self.chunk
        return self._segment.view(dtype, begin, numel)

    def end_capture(self) -> None:
        """Nothing: CPU tensors are not captured."""

    def close(self) -> None:
        """Unmap the segment here. Local, safe twice."""
        self._broken = self._broken or "it is closed"
        self._views.clear()
        self._segment.close()
