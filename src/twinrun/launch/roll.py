"""Which nodes of a launch have reported, and whether two of them claim one place. Pure.

Each node repeats its report until it hears that all are there. A node that was started again has
another key and the same rank as before, while the old one has fallen silent: so two nodes clash
only where each is heard after the other's first report.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

# Reports come twice a second; some may be lost.
EVERY_S = 0.5
# After the last new node, so that two that start together are both heard before the roll is closed.
GRACE_S = 2.0
MOST_BYTES = 1024
_MOST_NAME = 200
# Nodes that were started again, and whatever else sends to the port.
_MOST_OTHERS = 1000


@dataclass(frozen=True, slots=True)
class Report:
    """What one node says: a random key of its own, its host, its rank, and of how many nodes."""

    key: str
    host: str
    rank: int
    nodes: int

    def message(self) -> bytes:
        """The report as it travels."""
        told = {"twinrun": "roll", "key": self.key, "host": self.host[:_MOST_NAME]}
        return json.dumps(told | {"rank": self.rank, "nodes": self.nodes}).encode()


@dataclass(slots=True)
class _Heard:
    report: Report
    sender: str
    first: float
    last: float


@dataclass(slots=True)
class Roll:
    """The reports that reached node 0 of a launch of ``nodes`` nodes; ``trouble`` is the first clash."""

    nodes: int
    trouble: str | None = None
    _heard: dict[str, _Heard] = field(default_factory=dict)

    def take(self, report: Report, sender: str, now: float) -> None:
        """Note one report from the address ``sender`` at the time ``now`` (seconds, rising)."""
        if report.key not in self._heard and len(self._heard) >= self.nodes + _MOST_OTHERS:
            return
        heard = self._heard.setdefault(report.key, _Heard(report, sender, now, now))
        heard.last = now
        if self.trouble is not None:
            return
        if report.nodes != self.nodes:
            self.trouble = (
                f"node rank {report.rank}, {_who(heard)}, was started with --nnodes {report.nodes}, "
                f"node rank 0 with --nnodes {self.nodes}"
            )
        for other in self._heard.values():
            same = other.report.rank == report.rank and other is not heard
            if same and other.first <= heard.last and heard.first < other.last:
                self.trouble = (
                    f"node rank {report.rank} is claimed by {_who(other)} and {_who(heard)}"
                )

    def complete(self, now: float) -> bool:
        """Whether every node has reported, and no new one for a while."""
        ranks = {heard.report.rank for heard in self._heard.values()}
        newest = max((heard.first for heard in self._heard.values()), default=now)
        return ranks >= set(range(self.nodes)) and now - newest >= GRACE_S

    def answer(self, report: Report, now: float) -> bytes:
        """What the node is told, with its key, so that only who saw its report can answer it."""
        told = {"twinrun": "roll", "key": report.key, "complete": self.complete(now)}
        return json.dumps(told | {"trouble": self.trouble}).encode()


def _who(heard: _Heard) -> str:
    return f"host {heard.report.host} ({heard.sender})"


def read_report(message: bytes) -> Report | None:
    """The report in a datagram, or None where it is none; anybody may send to a port."""
    told = _read(message)
    if told is None:
        return None
    key, host, rank, nodes = (told.get(name) for name in ("key", "host", "rank", "nodes"))
    if not isinstance(key, str) or len(key) != 32 or not isinstance(host, str):
        return None
    if type(rank) is not int or type(nodes) is not int:
        return None
    shown = "".join(letter for letter in host[:_MOST_NAME] if letter.isprintable())
    return Report(key, shown, rank, nodes) if 0 <= rank < nodes <= 1 << 20 else None


def read_answer(message: bytes, key: str) -> tuple[bool, str | None] | None:
    """Whether all nodes are there, and the trouble, or None where it is no answer to ``key``."""
    told = _read(message)
    if told is None or told.get("key") != key or type(told.get("complete")) is not bool:
        return None
    trouble = told.get("trouble")
    return told["complete"], trouble if isinstance(trouble, str) else None


def _read(message: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and told.get("twinrun") == "roll" else None
