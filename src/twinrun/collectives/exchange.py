"""Small messages between all ranks of a group over CPU: facts, handles, verdicts. Never pickled."""

from __future__ import annotations

import atexit
import json
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from twinrun.errors import PeerError, UnavailableError

_DATA, _TROUBLE = b"D", b"T"
# By ranks: the default group that was there, and the gloo group made under it.
_kept: dict[tuple[int, ...], tuple[object, dist.ProcessGroup]] = {}
# Groups must not outlive the interpreter: their threads could not give up its tensors any more.
atexit.register(_kept.clear)


class Exchange:
    """All-gathers bytes and JSON among the ranks of one group, over gloo.

    Made by all ranks of ``group`` at the same point. A group whose backend has no CPU half is
    given a gloo group of the same ranks, made once and kept as long as the default group lives.
    """

    def __init__(self, group: dist.ProcessGroup, timeout_s: float = 300.0) -> None:
        self.ranks = tuple(dist.get_process_group_ranks(group))
        self.rank = dist.get_rank(group)
        self.size = len(self.ranks)
        own = self.size == 1 or _has_cpu(group)
        self._group = group if own else _gloo_group(self.ranks, timeout_s)

    @property
    def cpu_group(self) -> dist.ProcessGroup:
        """The group that messages travel over."""
        return self._group

    def gather(self, mine: bytes) -> list[bytes]:
        """Every rank's bytes, in the group's order.

        ``UnavailableError`` where a rank came with its trouble instead (``first_trouble``), so that
        one rank's failure reaches all of them; ``PeerError`` where a rank does not answer.
        """
        rows = self._answers(_DATA + mine)
        for rank, row in zip(self.ranks, rows, strict=True):
            if row.startswith(_TROUBLE):
                told = json.loads(row[1:]) or "it is a step ahead"
                raise UnavailableError(f"rank {rank} could not go on.", seen=told)
        return [row[1:] for row in rows]

    def gather_json(self, mine: Any) -> list[Any]:
        """Every rank's value, in the group's order; plain JSON values only."""
        return [json.loads(text) for text in self.gather(json.dumps(mine).encode())]

    def first_trouble(self, mine: str | None) -> str | None:
        """The first rank's trouble, with its rank, or None where no rank has any.

        Waits until every rank has come here: one that failed halfway is met by peers that still
        gather, who are told by that very message.
        """
        while True:
            rows = self._answers(_TROUBLE + json.dumps(mine).encode())
            if all(row.startswith(_TROUBLE) for row in rows):
                break
        for rank, row in zip(self.ranks, rows, strict=True):
            told = json.loads(row[1:])
            if told is not None:
                return f"rank {rank}: {told}"
        return None

    def _answers(self, mine: bytes) -> list[bytes]:
        try:
            return self._gather(mine)
        except RuntimeError as error:
            raise PeerError(
                "the ranks of a group could not exchange their facts.",
                seen=str(error).splitlines()[0],
                expected=f"an answer from each of ranks {list(self.ranks)}",
                do="make the AllReduce on every rank of its group, at the same point",
            ) from error

    def _gather(self, mine: bytes) -> list[bytes]:
        if self.size == 1:
            return [mine]
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in self.ranks]
        dist.all_gather(lengths, torch.tensor([len(mine)]), group=self._group)
        longest = max(int(length) for length in lengths)
        padded = torch.frombuffer(bytearray(mine.ljust(longest, b"\0")), dtype=torch.uint8)
        rows = [torch.empty(longest, dtype=torch.uint8) for _ in self.ranks]
        dist.all_gather(rows, padded, group=self._group)
        pairs = zip(rows, lengths, strict=True)
        return [bytes(row[: int(length)].tolist()) for row, length in pairs]

    def barrier(self) -> None:
        """Return once every rank has come here."""
        self.gather(b"")


def _gloo_group(ranks: tuple[int, ...], timeout_s: float) -> dist.ProcessGroup:
    """The gloo group of these ranks.

    Never destroyed and made again: torch would name the second like the first, and ranks would read
    the addresses that the first had left in the store.
    """
    world = dist.group.WORLD
    kept = _kept.get(ranks)
    if kept is not None and kept[0] is world:
        return kept[1]
    made: dist.ProcessGroup = dist.new_group(
        list(ranks),
        backend="gloo",
        timeout=timedelta(seconds=timeout_s),
        use_local_synchronization=True,
    )
    _kept[ranks] = world, made
    return made


def _has_cpu(group: dist.ProcessGroup) -> bool:
    return "cpu:" in dist.get_backend_config(group)
