"""Two-shot push: each rank sums one shard of everyone's, and sends the sum to everyone.

Two flight times and 2 (world - 1) / world x bytes sent; both times the data is its own flag.
"""

from __future__ import annotations

from twinrun.kernels.arguments import VECTOR_BYTES

NAME = "two_shot_push"
KERNEL = "two_shot_push"
_ROW_VECTORS = 8  # a shard starts on 128 bytes


def shard_vectors(world: int, nbytes: int) -> int:
    """The length of a shard in vectors; the last shards may be short or empty."""
    vectors = -(-nbytes // VECTOR_BYTES)
    return -(-vectors // (world * _ROW_VECTORS)) * _ROW_VECTORS


def slot_bytes(world: int, nbytes: int) -> int:
    """The slot that ``nbytes`` in one launch need: lanes for the parts, then for the sums."""
    return 2 * (world - 1) * shard_vectors(world, nbytes) * VECTOR_BYTES


def limit_bytes(world: int, slot: int) -> int:
    """The most bytes that one launch carries through slots of ``slot`` bytes."""
    row = _ROW_VECTORS * VECTOR_BYTES
    return slot // (2 * (world - 1) * row) * row * world
