"""What every all-reduce kernel is told, and how a workspace is laid out, as in ``arguments.cuh``."""

from __future__ import annotations

from ctypes import Structure, c_uint32, c_uint64

MAX_WORLD = 8
MAX_BLOCKS = 512
MAX_THREADS = 512
VECTOR_BYTES = 16

PUSH_EPOCHS = 0
BARRIER_EPOCHS = PUSH_EPOCHS + 4 * MAX_BLOCKS
BARRIER_FLAGS = BARRIER_EPOCHS + 4 * MAX_BLOCKS
SLOTS = BARRIER_FLAGS + 4 * MAX_BLOCKS * MAX_WORLD
SLOT_COUNT = 2

FLAG_EARLY = 1
EMPTY_BYTE = 0xFF


class Arguments(Structure):
    """The kernels' one parameter, passed by value."""

    _fields_ = (
        ("workspace", c_uint64 * MAX_WORLD),
        ("input", c_uint64),
        ("output", c_uint64),
        ("row", c_uint64),
        ("slot_bytes", c_uint64),
        ("report", c_uint64),
        ("timeout_ns", c_uint64),
        ("elements", c_uint32),
        ("rank", c_uint32),
        ("flags", c_uint32),
        ("call", c_uint32),
    )


def resident_blocks(world: int, multiprocessors: int, threads: int) -> int:
    """How many blocks of one kernel surely fit on a GPU at once.

    By the kernels' launch bounds alone (``MIN_BLOCKS`` in ``arguments.cuh``), and not by what one
    binary happens to need: ranks may run different binaries of a kernel with one and the same grid.
    """
    least = 3 if world == 2 else 2 if world <= 4 else 1
    return multiprocessors * (least * MAX_THREADS // threads)


def workspace_bytes(slot_bytes: int) -> int:
    """The size of a workspace with slots of ``slot_bytes``."""
    return SLOTS + SLOT_COUNT * slot_bytes
