"""What all ranks of a group know of themselves and agree on, before any buffer or handle exists."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """The facts that a plan rests on; equal on every rank of the group.

    ``ranks`` are global ranks in the group's order; ``nodes`` names the node of each of them (two
    ranks share memory only where their names are equal). ``device`` is ``cpu``, ``cuda`` or
    ``hip``; ``gpu`` the GPUs' common name (``mixed`` where they differ, empty on CPU);
    ``capability`` the least compute capability. ``library`` is the process group's own backend for
    that device, ``nccl``, ``gloo`` or another name, ``""`` where it has none.

    ``peer_access`` says whether every GPU of the group reads every other's memory, tested by a
    copy that was checked; ``in_place`` whether what torch allocates on each of them can be opened by
    every other rank (expandable segments cannot). Both None where not asked or beside the point. ``off`` and
    ``missing`` give a backend's reason not to be used at all: ``off`` because a variable or a rule
    says so, ``missing`` because some rank lacks what it needs (the reason names the rank).
    """

    ranks: tuple[int, ...]
    nodes: tuple[str, ...]
    device: str
    library: str
    gpu: str = ""
    capability: tuple[int, int] = (0, 0)
    peer_access: bool | None = None
    in_place: bool | None = None
    job_nodes: int = 1
    asked: str = "auto"
    deterministic: bool = False
    off: tuple[tuple[str, str], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def size(self) -> int:
        """How many ranks the group has."""
        return len(self.ranks)

    @property
    def node_count(self) -> int:
        """How many nodes the group's ranks lie on."""
        return len(set(self.nodes))

    @property
    def in_one_node(self) -> bool:
        """Whether all ranks of the group lie on one node."""
        return self.node_count == 1

    def lacking(self, backend: str, reason: str) -> GroupFacts:
        """These facts with one more backend that is not to be used."""
        return replace(self, missing=(*self.missing, (backend, reason)))

    def refusal(self, backend: str) -> str | None:
        """Why ``backend`` is not to be used at all in this group, whatever is asked of it."""
        for name, reason in (*self.off, *self.missing):
            if name == backend:
                return reason
        return None


@dataclass(frozen=True, slots=True)
class Request:
    """One all-reduce as far as choosing needs to know it; equal on every rank of the group.

    ``dtype`` is torch's name without ``torch.``. ``order`` is ``ranks``, ``tree`` or ``any``;
    ``order_asked`` whether the user named it (``order=``, the variable, or ``--deterministic``).
    ``capturing``: a CUDA graph is being captured; ``registers``: inside ``AllReduce.capture()``,
    which exchanges the graph's input addresses when it ends.

    How a tensor lies in memory is no part of the choice, because ranks may differ in it and would
    choose differently: ``contiguous`` is there for the reason's text alone (a tensor that is not
    is summed through a contiguous copy), and alignment is each reducer's own affair.
    """

    nbytes: int
    dtype: str
    order: str = "ranks"
    order_asked: bool = False
    contiguous: bool = True
    capturing: bool = False
    registers: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A choice with its reason, and what was declined and why.

    ``order`` is the order in which the sum really happens: ``ranks``, ``tree``, ``any``, or
    ``library`` where the library behind the group decides. ``blocks`` and ``threads`` are the
    kernel's launch shape (0 where there is no kernel of Twinrun's).
    """

    backend: str
    algorithm: str
    order: str
    reason: str
    declined: tuple[tuple[str, str], ...] = ()
    blocks: int = 0
    threads: int = 0

    def why_not(self, backend: str) -> str | None:
        """Why ``backend`` was declined, or None where it was chosen or never in line."""
        return dict(self.declined).get(backend)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a backend would do with a request: its algorithm, launch shape and reason."""

    algorithm: str
    reason: str
    order: str
    blocks: int = 0
    threads: int = 0
