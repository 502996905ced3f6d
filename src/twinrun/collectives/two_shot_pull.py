"""Two-shot pull: each rank reads one shard where it lies and writes the sum where it belongs.

No staging: inputs and outputs must be memory that every rank has mapped, which is so for
symmetric memory and for what a CUDA graph captured inside ``AllReduce.capture()``. 2 (world - 1) /
world x bytes move, half of them read and half written; a barrier at each end.
"""

from __future__ import annotations

NAME = "two_shot_pull"
KERNEL = "two_shot_pull"
