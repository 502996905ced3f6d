"""The facts of a group, agreed by all its ranks, so that none chooses differently from its peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

import twinrun
from twinrun.collectives import probe
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import GroupFacts
from twinrun.collectives.wishes import Wishes, why_in_node_only
from twinrun.errors import PeerError
from twinrun.launch import guard
from twinrun.launch.decision import Decision
from twinrun.topology.job import job
from twinrun.topology.node import NodeIdentity, identity, label_nodes


@dataclass(frozen=True, slots=True)
class Agreement:
    """The facts that all ranks agreed on, and the guard's decision where no launch had made it."""

    facts: GroupFacts
    decision: Decision | None


def agree(
    exchange: Exchange,
    device: torch.device,
    library: str,
    wishes: Wishes,
    environ: Mapping[str, str],
) -> Agreement:
    """Meet all ranks of the group and agree; ``PeerError`` names a rank that cannot.

    Opens no handle to any peer but the shared-memory tokens and, between GPUs of one node, the
    tested copy.
    """
    told = job(environ)
    mine = {
        "versions": {"twinrun": twinrun.__version__, "torch": torch.__version__},
        "wishes": wishes.compared(),
        "off": wishes.off,
        "library": library,
        "device": asdict(probe.describe(device)),
        "job_nodes": told.nnodes or 1,
        "node": identity(environ, told).told(),
        "missing": probe.missing(device),
    }
    answers = exchange.gather_json(mine)
    _same(exchange.ranks, answers)
    nodes = label_nodes([NodeIdentity(**answer["node"]) for answer in answers])
    nodes = probe.part_by_memory(exchange, nodes)
    job_nodes = max(len(set(nodes)), *(answer["job_nodes"] for answer in answers))
    forced, decision = guard.in_node_only(job_nodes, wishes.keep_in_node, environ)
    off = [(backend, reason) for backend, reason in answers[0]["off"]]
    if forced:
        off.append(("symmetric", why_in_node_only(job_nodes)))
    facts = GroupFacts(
        ranks=exchange.ranks,
        nodes=nodes,
        device=answers[0]["device"]["kind"],
        library=library,
        gpu=_common([answer["device"]["name"] for answer in answers]),
        capability=min(_pair(answer["device"]["capability"]) for answer in answers),
        job_nodes=job_nodes,
        asked=wishes.backend,
        deterministic=wishes.deterministic,
        off=tuple(off),
        missing=_missing(exchange.ranks, answers),
    )
    return Agreement(facts, decision if forced else None)


def _same(ranks: Sequence[int], answers: Sequence[Mapping[str, Any]]) -> None:
    """Refuse ranks that differ in what all must have alike, naming the first such rank."""
    for part, what in (
        ("versions", "versions"),
        ("wishes", "settings of the all-reduce"),
        ("library", "process group backends"),
    ):
        for rank, answer in zip(ranks, answers, strict=True):
            if answer[part] != answers[0][part]:
                raise _differs(what, ranks[0], answers[0][part], rank, answer[part])
    kinds = [answer["device"]["kind"] for answer in answers]
    for rank, kind in zip(ranks, kinds, strict=True):
        if kind != kinds[0]:
            raise _differs("kinds of device", ranks[0], kinds[0], rank, kind)


def _differs(what: str, first: int, one: Any, second: int, other: Any) -> PeerError:
    if isinstance(one, dict):
        keys = [key for key in one if one[key] != other[key]]
        one, other = {key: one[key] for key in keys}, {key: other[key] for key in keys}
    return PeerError(
        f"rank {second} cannot agree with rank {first}: their {what} differ.",
        seen=f"rank {first} has {one}, rank {second} has {other}",
        expected="the same on every rank of the group",
        do="start every node with the same environment and the same installation",
    )


def _missing(
    ranks: Sequence[int], answers: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for rank, answer in zip(ranks, answers, strict=True):
        for backend, reason in answer["missing"].items():
            found.setdefault(backend, f"rank {rank}: {reason}")
    return tuple(found.items())


def _common(names: Sequence[str]) -> str:
    return names[0] if len(set(names)) == 1 else "mixed"


def _pair(value: Sequence[int]) -> tuple[int, int]:
    return int(value[0]), int(value[1])
