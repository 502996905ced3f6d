"""Index arithmetic of the kernels, also for the worlds that no machine at hand can run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from all_reduce_emulation import Memory, one_shot, pull, shard_length, sum_in_order, two_shot
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twinrun.collectives import one_shot_push, two_shot_push

WORLDS = st.sampled_from([2, 3, 4, 6, 8])
Kernel = Callable[[Memory, int, int, int, str], None]


def run(kernel: Kernel, world: int, vectors: int, blocks: int, width: int, order: str) -> Memory:
    slots = {one_shot: one_shot_push.slot_bytes, two_shot: two_shot_push.slot_bytes}
    slot = slots[kernel](world, vectors * 16) if kernel in slots else 0
    memory = Memory(slot, world)
    kernel(memory, vectors, blocks, width, order)
    return memory


@pytest.mark.parametrize("kernel", [one_shot, two_shot, pull])
@given(
    world=WORLDS,
    vectors=st.integers(1, 150),
    blocks=st.integers(1, 5),
    width=st.sampled_from([1, 2, 8, 32]),
    order=st.sampled_from(["ranks", "tree"]),
)
@settings(max_examples=40, deadline=None)
@example(world=6, vectors=1, blocks=1, width=1, order="tree")
@example(world=8, vectors=57, blocks=2, width=8, order="ranks")
def test_every_element_is_the_sum_in_the_stated_order(
    kernel: Kernel, world: int, vectors: int, blocks: int, width: int, order: str
) -> None:
    """Each rank writes each vector once, with one and the same sum; every place is emptied."""
    memory = run(kernel, world, vectors, blocks, width, order)
    wanted = sum_in_order([f"{rank}" for rank in range(world)], order)
    assert set(memory.outputs) == {(rank, v) for rank in range(world) for v in range(vectors)}
    assert set(memory.outputs.values()) == {wanted}
    assert not memory.places


@pytest.mark.parametrize(
    ("world", "text"),
    [
        (2, "(0+1)"),
        (3, "((0+1)+2)"),
        (4, "((0+1)+(2+3))"),
        (6, "(((0+1)+(2+3))+(4+5))"),
        (8, "(((0+1)+(2+3))+((4+5)+(6+7)))"),
    ],
)
def test_the_tree_is_the_stated_one(world: int, text: str) -> None:
    """Pairs, their pairs, and so on; what has no partner waits for the next level."""
    assert sum_in_order([f"{rank}" for rank in range(world)], "tree") == text


@given(world=WORLDS, slot=st.integers(1 << 12, 1 << 25))
def test_a_launch_of_the_limit_fits_the_slot(world: int, slot: int) -> None:
    """limit_bytes is the most that slot_bytes allows, to a vector or a row of vectors."""
    for algorithm in (one_shot_push, two_shot_push):
        limit = algorithm.limit_bytes(world, slot)
        assert algorithm.slot_bytes(world, limit) <= slot
        assert algorithm.slot_bytes(world, limit + 1) > slot


@given(world=WORLDS, nbytes=st.integers(1, 1 << 24))
def test_shards_are_as_long_in_python_as_in_the_kernel(world: int, nbytes: int) -> None:
    """two_shot_push.py sizes slots by the kernel's own shard length."""
    vectors = -(-nbytes // 16)
    assert two_shot_push.shard_vectors(world, nbytes) == shard_length(vectors, world)
