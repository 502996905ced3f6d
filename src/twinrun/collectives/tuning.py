"""Which of Twinrun's kernels a request gets, by size. Pure: ``twinrun doctor`` asks it too.

``tuning.json`` holds what was measured (benchmarks/tune_all_reduce.py writes it): for a GPU and a
number of ranks, rows of bytes, algorithm, blocks and threads. A request takes the first row that is
no smaller than it, the last one where it is larger than all. A GPU or a number of ranks that was not
measured gets careful sizes, and the reason says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from twinrun.collectives import one_shot_push, two_shot_push
from twinrun.collectives.facts import GroupFacts, Offer, Request
from twinrun.kernels.arguments import MAX_THREADS, VECTOR_BYTES

TABLE = Path(__file__).parent / "tuning.json"

# For what was not measured: up to here latency is all that counts; then as the H200's rows go.
_ONE_SHOT_BYTES = 128 << 10
_CAREFUL_SLOT = 8 << 20
_CAREFUL_BLOCKS = 64
# A launch counts elements in 32 bits; in place there are no pieces.
_MOST_PULLED = 1 << 32


@dataclass(frozen=True, slots=True)
class Row:
    """Up to ``nbytes``: this algorithm with this launch shape."""

    nbytes: int
    algorithm: str
    blocks: int
    threads: int


@dataclass(frozen=True, slots=True)
class Table:
    """What was measured for one backend, GPU and number of ranks.

    ``slot_bytes`` is the workspace's slot; ``pull`` the row of ``two_shot_pull``, used from its
    ``nbytes`` on where a graph's inputs are read in place, None where it never won.
    """

    backend: str
    gpu: str
    world: int
    slot_bytes: int
    rows: tuple[Row, ...]
    pull: Row | None
    origin: str

    def row(self, nbytes: int) -> Row:
        """The row for a tensor of ``nbytes``."""
        return next((row for row in self.rows if nbytes <= row.nbytes), self.rows[-1])


def pick(backend: str, facts: GroupFacts, request: Request) -> Offer | str:
    """The algorithm of ``backend`` (``symmetric`` or ``ipc``) for ``request``, or a refusal.

    Called only for what the backend's other conditions allow: one node, a supported world size and
    dtype, contiguous tensors.
    """
    if facts.gpu == "mixed":
        return "the group's GPUs differ, and its kernels need one grid on all of them"
    order = "tree" if request.order == "tree" else "ranks"
    table = find(backend, facts.gpu, facts.size)
    if table is None:
        return _careful(backend, facts, request, order)
    pull = table.pull
    if pull and pull.nbytes <= request.nbytes <= _MOST_PULLED and _in_place(facts, request):
        return Offer("two_shot_pull", f"{table.origin}; in place", order, pull.blocks, pull.threads)
    row = table.row(request.nbytes)
    return Offer(row.algorithm, table.origin, order, row.blocks, row.threads)


def _in_place(facts: GroupFacts, request: Request) -> bool:
    """Whether the call's own tensors will be exchanged when the capture ends."""
    return request.capturing and request.registers and facts.in_place is not False


def slot_bytes(backend: str, facts: GroupFacts) -> int:
    """The slot that a group's workspace gets."""
    table = find(backend, facts.gpu, facts.size)
    if table is not None:
        return table.slot_bytes
    return max(one_shot_push.slot_bytes(facts.size, _ONE_SHOT_BYTES), _CAREFUL_SLOT)


def find(backend: str, gpu: str, world: int) -> Table | None:
    """The table of this GPU and number of ranks, or None."""
    for table in tables():
        if (table.backend, table.gpu, table.world) == (backend, gpu, world):
            return table
    return None


@cache
def tables(path: Path = TABLE) -> tuple[Table, ...]:
    """Every measured table."""
    told = json.loads(path.read_text(encoding="utf-8"))
    return tuple(_table(one) for one in told["tables"])


def _table(told: dict[str, Any]) -> Table:
    return Table(
        backend=told["backend"],
        gpu=told["gpu"],
        world=told["world"],
        slot_bytes=told["slot_bytes"],
        rows=tuple(Row(*row) for row in told["rows"]),
        pull=Row(*told["pull"]) if told["pull"] else None,
        origin=f"measured on {told['machine']} on {told['date']}",
    )


def _careful(backend: str, facts: GroupFacts, request: Request, order: str) -> Offer:
    small = request.nbytes <= _ONE_SHOT_BYTES
    known = {
        "symmetric": ("one_shot_push", "two_shot_push"),
        "ipc": ("one_stage", "two_stage"),
    }[backend]
    vectors = -(-request.nbytes // VECTOR_BYTES)
    work = vectors if small else two_shot_push.shard_vectors(facts.size, request.nbytes)
    threads = 128 if small else min(256, MAX_THREADS)
    blocks = max(1, min(_CAREFUL_BLOCKS, -(-work // threads)))
    gpu = facts.gpu or "this GPU"
    note = f"no table was measured for {facts.size} ranks on {gpu}: careful sizes"
    return Offer(known[0] if small else known[1], note, order, blocks, threads)
