"""What both halves of a direct channel between two processes' GPUs say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

QUESTIONS = ("ask", "prove", "room", "drop", "left", "nccl")
"""What the sending half says."""
ANSWERS = ("told", "proven", "segment", "pad", "closing", "met", "go")
"""What the receiving half says."""


class Desk(Protocol):
    """What a direct channel needs of the roster."""

    def tell(self, header: Mapping[str, Any], fd: int | None = None) -> None:
        """Send a control message to this peer; PeerError."""
        ...

    def check(self) -> None:
        """Raise once the peer has gone."""
        ...
