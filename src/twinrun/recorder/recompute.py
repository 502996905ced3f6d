"""Activation checkpointing: telling a recomputed forward from a first one."""

from __future__ import annotations

import torch


def in_backward() -> bool:
    """Whether this thread is executing a backward pass.

    A module that is called there is being recomputed: reentrant and non-reentrant checkpointing,
    and frameworks' own, all run the forward again from inside an autograd node.
    """
    graph_task: int = torch._C._current_graph_task_id()
    return graph_task != -1
