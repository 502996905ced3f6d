"""Memory that every GPU of a group addresses: where each rank's begins, and who frees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from twinrun.kernels.arguments import workspace_bytes


@dataclass(slots=True)
class Workspace:
    """One workspace a rank, mapped by all; this rank holds the view.

    ``addresses`` has every rank's workspace, in the group's order, as this rank addresses it.
    ``slot_bytes`` is the size of one of its slots (docs/all-reduce.md). Whoever made it gives
    ``free``, which unmaps the peers' memory and releases this rank's own.
    """

    addresses: tuple[int, ...]
    slot_bytes: int
    free: Callable[[], None] = field(repr=False)
    _closed: bool = False

    @property
    def nbytes(self) -> int:
        """What it holds on this rank, in bytes; 0 once it is closed."""
        return 0 if self._closed else workspace_bytes(self.slot_bytes)

    def close(self) -> None:
        """Free it. Safe twice; no kernel that uses it may be running on this rank."""
        if not self._closed:
            self._closed = True
            self.free()
