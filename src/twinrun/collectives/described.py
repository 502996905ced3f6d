"""The facts of a group that exists only in words: the cluster that ``twinrun doctor`` is told of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from twinrun.collectives.facts import GroupFacts
from twinrun.collectives.wishes import read_wishes
from twinrun.env import variables as V


@dataclass(frozen=True, slots=True)
class Described:
    """A group in words: ``size`` ranks, ``ranks_per_node`` on each node of ``nodes``.

    ``device`` is ``cpu``, ``cuda`` or ``hip``; ``library`` the process group's backend. ``missing``
    gives what this machine is known to lack for a backend; ``peer_access`` whether all its GPUs
    reach each other, None where nobody looked.
    """

    size: int
    nodes: int
    ranks_per_node: int
    device: str
    library: str
    gpu: str = ""
    capability: tuple[int, int] = (0, 0)
    peer_access: bool | None = None
    missing: tuple[tuple[str, str], ...] = ()


def facts_of(group: Described, environ: Mapping[str, str]) -> GroupFacts:
    """What the ranks of such a group would agree on, started with this environment."""
    wishes = read_wishes(None, None, None, environ)
    return GroupFacts(
        ranks=tuple(range(group.size)),
        nodes=tuple(f"node{rank // group.ranks_per_node}" for rank in range(group.size)),
        device=group.device,
        library=group.library,
        gpu=group.gpu,
        capability=group.capability,
        peer_access=group.peer_access,
        job_nodes=group.nodes,
        asked=wishes.backend,
        deterministic=V.DETERMINISTIC.get(environ),
        off=wishes.off,
        missing=group.missing,
    )
