"""What a backend gives the chooser: the protocol behind ``AllReduce``.

A backend has two halves. The pure half needs no torch: ``offer(facts, request)`` returns an
``Offer`` or the reason to decline, and is listed in ``plan.py``. The other half is a module named
after the backend (``symmetric.py``, ``ipc.py``, ``shared_memory.py`` ...) with two functions:

    def probe(device: torch.device) -> str | None
        Why this rank cannot run the backend at all, or None. Local, opens no handle to a peer,
        raises nothing for what is merely absent (driver, compiler, package).

    def make(group, exchange, facts, device) -> Reducer
        Allocate the workspace and meet the peers. Called by all ranks of the group at the same
        point, only when no rank's probe refused. Raises UnavailableError where it cannot be had;
        when any rank raises, every rank closes what it made and the next backend is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twinrun.collectives.facts import GroupFacts, Plan

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

    from twinrun.collectives.exchange import Exchange

Start = Callable[["torch.Tensor", "torch.Tensor"], None]
"""Enqueues the sum of its first tensor over the ranks, to its second."""


class Reducer(Protocol):
    """One backend at work for one group on one device."""

    @property
    def workspace_bytes(self) -> int:
        """Memory it holds on this rank until ``close()``."""

    def all_reduce(self, x: torch.Tensor, out: torch.Tensor, plan: Plan) -> None:
        """Write the sum over the group's ranks of their ``x`` to ``out``; ``out`` may be ``x``.

        ``x`` and ``out`` have one dtype, one shape, at least one element, are contiguous, and are
        what ``plan`` was made for. They may begin at any address that their dtype allows, not the
        same on every rank. On CUDA it is enqueued on the current stream and allocates nothing.
        """

    def starter(self, plan: Plan, dtype: torch.dtype, elements: int) -> Start:
        """``all_reduce`` for tensors of this size and plan, worked out once; for many calls."""

    def end_capture(self) -> None:
        """Exchange what graphs captured since the last call need (``AllReduce.capture()`` ends).

        Called by all ranks of the group at the same point, outside any stream capture. Nothing
        to do for a backend that reads no input in place.
        """

    def close(self) -> None:
        """Free the workspace. Local: ranks close in any order, so no peer is ever waited for.

        Safe to call twice. A peer may close while this rank still runs its last all-reduce, so
        an all-reduce must not be done on one rank before every peer has finished with its memory.
        """


class Maker(Protocol):
    """The module of a backend, as ``AllReduce`` uses it."""

    def probe(self, device: torch.device) -> str | None:
        """Why this rank cannot run the backend at all, or None."""

    def make(
        self, group: dist.ProcessGroup, exchange: Exchange, facts: GroupFacts, device: torch.device
    ) -> Reducer:
        """A reducer of this group, or UnavailableError."""
