"""The push kernels' index arithmetic, thread by thread on the CPU, for any number of ranks.

Mirrors one_shot_push.cu, two_shot_push.cu, mailbox.cuh and order.cuh line by line: which thread
sends which vector where, who waits for what, who writes what. Memory is a dictionary of places, so
a place that two senders use, one that nobody empties, or one beyond the slot shows at once.
Values are texts such as ``((0+1)+2)``, so an element's whole history can be read off its sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field

VECTOR_BYTES = 16


def after(rank: int, steps: int, world: int) -> int:
    r = rank + steps
    return r - world if r >= world else r


def lane_of(sender: int, receiver: int) -> int:
    return sender - (sender > receiver)


def sum_in_order(parts: list[str], order: str) -> str:
    """order.cuh: what is added to what."""
    if order == "ranks":
        total = parts[0]
        for part in parts[1:]:
            total = f"({total}+{part})"
        return total
    node, world, gap = list(parts), len(parts), 1
    while gap < world:
        for r in range(0, world - gap, 2 * gap):
            node[r] = f"({node[r]}+{node[r + gap]})"
        gap *= 2
    return node[0]


@dataclass
class Memory:
    """Every rank's slot, and every rank's output."""

    slot_bytes: int
    world: int
    places: dict[tuple[int, int], str] = field(default_factory=dict)
    outputs: dict[tuple[int, int], str] = field(default_factory=dict)
    most: int = 0

    def send(self, receiver: int, at: int, mail: str) -> None:
        assert at % VECTOR_BYTES == 0
        assert (receiver, at) not in self.places, "two senders share a place"
        self.places[receiver, at] = mail
        self.most = max(self.most, at + VECTOR_BYTES)
        assert self.most <= self.slot_bytes, "a place beyond the slot"

    def take(self, receiver: int, at: int) -> str:
        return self.places.pop((receiver, at))

    def write(self, rank: int, vector: int, value: str) -> None:
        assert (rank, vector) not in self.outputs, "written twice"
        self.outputs[rank, vector] = value


def threads(blocks: int, width: int) -> list[int]:
    return [block * width + thread for block in range(blocks) for thread in range(width)]


def one_shot(memory: Memory, vectors: int, blocks: int, width: int, order: str) -> None:
    world, stride = memory.world, blocks * width
    mine = [[f"{rank}" for _ in range(vectors)] for rank in range(world)]
    lane_bytes = vectors * VECTOR_BYTES
    for rank in range(world):
        for first in threads(blocks, width):
            for v in range(first, vectors, stride):
                for k in range(1, world):
                    receiver = after(rank, k, world)
                    at = lane_of(rank, receiver) * lane_bytes + v * VECTOR_BYTES
                    memory.send(receiver, at, mine[rank][v])
    for rank in range(world):
        for first in threads(blocks, width):
            for v in range(first, vectors, stride):
                parts = [
                    mine[rank][v]
                    if r == rank
                    else memory.take(rank, lane_of(r, rank) * lane_bytes + v * VECTOR_BYTES)
                    for r in range(world)
                ]
                memory.write(rank, v, sum_in_order(parts, order))


def shard_length(vectors: int, world: int) -> int:
    return ((vectors + world - 1) // world + 7) // 8 * 8


def two_shot(memory: Memory, vectors: int, blocks: int, width: int, order: str) -> None:
    world, stride = memory.world, blocks * width
    length = shard_length(vectors, world)
    lane_bytes, sums = length * VECTOR_BYTES, (world - 1) * length * VECTOR_BYTES

    def has(owner: int, p: int) -> bool:
        return owner * length + p < vectors

    def all_p() -> list[int]:
        return [p for first in threads(blocks, width) for p in range(first, length, stride)]

    for rank in range(world):
        for p in all_p():
            for k in range(1, world):
                owner = after(rank, k, world)
                if has(owner, p):
                    at = lane_of(rank, owner) * lane_bytes + p * VECTOR_BYTES
                    memory.send(owner, at, f"{rank}")
    for rank in range(world):
        for p in all_p():
            if not has(rank, p):
                continue
            parts = [
                f"{rank}"
                if r == rank
                else memory.take(rank, lane_of(r, rank) * lane_bytes + p * VECTOR_BYTES)
                for r in range(world)
            ]
            total = sum_in_order(parts, order)
            memory.write(rank, rank * length + p, total)
            for k in range(1, world):
                receiver = after(rank, k, world)
                at = sums + lane_of(rank, receiver) * lane_bytes + p * VECTOR_BYTES
                memory.send(receiver, at, total)
    for rank in range(world):
        for p in all_p():
            for r in range(world):
                if r != rank and has(r, p):
                    at = sums + lane_of(r, rank) * lane_bytes + p * VECTOR_BYTES
                    memory.write(rank, r * length + p, memory.take(rank, at))


def pull(memory: Memory, vectors: int, blocks: int, width: int, order: str) -> None:
    """two_shot_pull.cu: UNROLL vectors at a time of the rank's own shard."""
    world, stride = memory.world, blocks * width
    unroll = 1 if world > 4 else 2
    length = shard_length(vectors, world)
    for rank in range(world):
        first = min(rank * length, vectors)
        last = min(first + length, vectors)
        for thread in threads(blocks, width):
            for v in range(first + thread, last, stride * unroll):
                for i in range(unroll):
                    if v + i * stride < last:
                        total = sum_in_order([f"{r}" for r in range(world)], order)
                        for receiver in range(world):
                            memory.write(receiver, v + i * stride, total)
