"""The addresses that captured two_shot_pull calls read and write, on every rank.

A captured call is given a row of a table in device memory: every rank's input, then every rank's
output. While the graph is captured only this rank's are known; ``end_capture`` exchanges them and
fills the rows in. A row is used again when a later capture has the same two tensors (allocation
and offset) on this rank; should another rank's differ then, all ranks are told to capture again,
and rows are no longer shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from twinrun.collectives.exchange import Exchange
from twinrun.collectives.ipc_memory import PeerMemory, Place, exchange_places, place_of
from twinrun.errors import PeerError, UnavailableError

MOST_ROWS = 1 << 14
Own = tuple[Place, Place]


@dataclass(slots=True)
class _Pending:
    row: int
    own: Own
    addresses: tuple[int, int]


class GraphRows:
    """The table of one reducer. ``MOST_ROWS`` different pairs of tensors, then a clear refusal."""

    def __init__(self, exchange: Exchange, device: torch.device) -> None:
        self._exchange = exchange
        self._device = device
        self._peers = PeerMemory(device)
        width = 2 * exchange.size
        self._table = torch.zeros((MOST_ROWS, width), dtype=torch.int64, device=device)
        self._base, self._stride = self._table.data_ptr(), width * self._table.element_size()
        self._filled: dict[int, list[Own]] = {}
        self._by_own: dict[Own, int] = {}
        self._pending: list[_Pending] = []
        self._next = 0
        self._trouble: str | None = None
        self._sharing = True

    @property
    def nbytes(self) -> int:
        """Device memory of the table."""
        return MOST_ROWS * self._stride

    @property
    def rows(self) -> int:
        """How many rows are in use."""
        return self._next

    def row(self, source: int, target: int) -> int:
        """The address of the row for a call that is being captured now."""
        try:
            own = place_of(source), place_of(target)
            number = self._number(own)
        except UnavailableError as error:
            # The peers capture on, so all are told together, in end_capture.
            self._trouble = self._trouble or f"{error.summary} {error.seen or ''}"
            return self._base
        self._pending.append(_Pending(number, own, (source, target)))
        return self._base + number * self._stride

    def _number(self, own: Own) -> int:
        known = self._by_own.get(own) if self._sharing else None
        if known is not None:
            return known
        if self._next >= MOST_ROWS:
            raise UnavailableError(f"more than {MOST_ROWS} captured all-reduces read in place.")
        self._next += 1
        return self._next - 1

    def end_capture(self) -> None:
        """Exchange what was captured since the last call, and fill in its rows."""
        pending, self._pending = self._pending, []
        trouble, self._trouble = self._trouble, None
        told = self._exchange.first_trouble(trouble)
        if told is not None:
            raise UnavailableError(
                "a captured all-reduce cannot read its input in place.",
                seen=told,
                expected="on every rank, memory of torch's default allocator",
                do="TWINRUN_ALL_REDUCE_GRAPH_INPUTS=0, and capture again",
            )
        counts = self._exchange.gather_json(len(pending))
        if len(set(counts)) != 1:
            raise PeerError(
                "the ranks captured different numbers of all-reduces.",
                seen=f"ranks {list(self._exchange.ranks)} captured {counts}",
                expected="the same calls in the same order on every rank",
                do="capture the same graph on every rank",
            )
        if pending:
            self._fill(pending)

    def _fill(self, pending: list[_Pending]) -> None:
        flat = [place for call in pending for place in call.own]
        ranks = exchange_places(self._exchange, flat)
        clash = False
        for number, call in enumerate(pending):
            pairs = [(row[2 * number], row[2 * number + 1]) for row in ranks]
            before = self._filled.get(call.row)
            clash = clash or (before is not None and before != pairs)
            if before is None:
                self._filled[call.row] = pairs
                self._by_own[call.own] = call.row
                self._table[call.row] = torch.tensor(self._addresses(pairs, call))
        torch.cuda.synchronize(self._device)
        told = self._exchange.first_trouble("its tensors moved" if clash else None)
        if told is not None:
            self._sharing = False
            raise PeerError(
                "a captured all-reduce has other tensors on one rank than in an earlier capture.",
                seen=told,
                expected="graphs that are captured again to change alike on every rank",
                do="capture the graphs of this block once more; rows are no longer shared",
            )

    def _addresses(self, pairs: list[Own], call: _Pending) -> list[int]:
        """Every rank's input, then every rank's output, as this rank addresses them."""
        both = []
        for side in (0, 1):
            for rank, pair in enumerate(pairs):
                own = rank == self._exchange.rank
                both.append(call.addresses[side] if own else self._peers.address(rank, pair[side]))
        return both

    def close(self) -> None:
        """Unmap the peers' memory. No graph that was captured with these rows may run again."""
        self._peers.close()
        self._filled.clear()
        self._by_own.clear()
        self._table = torch.empty(0, dtype=torch.int64)
