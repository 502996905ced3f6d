"""Which node a process runs on, and which processes of a group share one."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twinrun.env import variables as V
from twinrun.topology.job import Job

_BOOT_ID = Path("proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What tells this process's node from others.

    ``named`` is ``TWINRUN_NODE_ID`` and outweighs ``boot_id`` and ``host``, since network
    namespaces and containers of one machine may share or differ in both. ``place`` is the node's
    number where the launcher started several; two numbers are two nodes whatever else they share.
    """

    host: str
    boot_id: str = ""
    named: str | None = None
    place: int | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for two processes exactly where nothing tells their nodes apart."""
        who = (self.named,) if self.named is not None else (self.host, self.boot_id)
        return (*who, "" if self.place is None else str(self.place))

    @property
    def label(self) -> str:
        """A short name to print: what the user named it, else the host."""
        return self.named if self.named is not None else self.host

    def told(self) -> dict[str, Any]:
        """This identity as plain JSON values, to be sent to the other ranks."""
        return asdict(self)


def identity(
    environ: Mapping[str, str], job: Job, root: Path = Path("/"), host: str | None = None
) -> NodeIdentity:
    """The identity of the node that this process runs on.

    The launcher's node number counts only in a job of several nodes.
    """
    several = job.nnodes is not None and job.nnodes > 1
    return NodeIdentity(
        host=socket.gethostname() if host is None else host,
        boot_id=_read(root / _BOOT_ID),
        named=V.NODE_ID.get(environ),
        place=job.node_rank if several else None,
    )


def label_nodes(identities: Sequence[NodeIdentity]) -> tuple[str, ...]:
    """A name for each process's node; two names are equal exactly where the nodes are one.

    Nodes that would print alike (two launcher numbers on one host) are told apart by a number.
    """
    order = list(dict.fromkeys(each.key for each in identities))
    labels = {each.key: each.label for each in identities}
    taken = [labels[key] for key in order]
    names = {
        key: label if taken.count(label) == 1 else f"{label}#{index}"
        for index, (key, label) in enumerate(zip(order, taken, strict=True))
    }
    return tuple(names[each.key] for each in identities)


def split_unseen(nodes: Sequence[str], sees: Sequence[Iterable[int]]) -> tuple[str, ...]:
    """Part the ranks of one node that do not share memory.

    ``sees[r]`` holds the ranks whose shared-memory token rank ``r`` could read. Ranks stay together
    only where each sees the other; those that do not are given names of their own.
    """
    seen = [set(each) for each in sees]
    leaders: dict[int, int] = {}
    for rank, node in enumerate(nodes):
        same = (
            lead for lead in dict.fromkeys(leaders.values())
            if nodes[lead] == node and lead in seen[rank] and rank in seen[lead]
        )  # fmt: skip
        leaders[rank] = next(same, rank)
    parted = {nodes[lead] for lead in leaders.values() if _leads(nodes, leaders, nodes[lead]) > 1}
    return tuple(
        f"{node}/memory-of-{leaders[rank]}" if node in parted else node
        for rank, node in enumerate(nodes)
    )


def _leads(nodes: Sequence[str], leaders: Mapping[int, int], node: str) -> int:
    return len({lead for lead in leaders.values() if nodes[lead] == node})


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
