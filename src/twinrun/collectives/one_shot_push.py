"""One-shot push: every rank sends its whole tensor to every other; each sums for itself.

One flight time and (world - 1) x bytes sent. The data is its own flag (``mailbox.cuh``).
"""

from __future__ import annotations

from twinrun.kernels.arguments import VECTOR_BYTES

NAME = "one_shot_push"
KERNEL = "one_shot_push"


def slot_bytes(world: int, nbytes: int) -> int:
    """The slot that ``nbytes`` in one launch need: a lane of whole vectors for every peer."""
    return (world - 1) * -(-nbytes // VECTOR_BYTES) * VECTOR_BYTES


def limit_bytes(world: int, slot: int) -> int:
    """The most bytes that one launch carries through slots of ``slot`` bytes."""
    return slot // (world - 1) // VECTOR_BYTES * VECTOR_BYTES
