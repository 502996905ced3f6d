"""What a launch was asked for, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

AXES = ("tp", "dp", "pp", "cp", "ep")


@dataclass(frozen=True, slots=True)
class LaunchArgs:
    """A launch as asked; None means that nothing was said, so that a default or a rule decides.

    ``nnodes`` nodes, this one ``node_rank`` of them, ``nproc_per_node`` ranks on each;
    ``dist_init_addr`` is ``HOST:PORT`` of node 0. ``tp``, ``dp``, ``pp``, ``cp`` and ``ep`` are
    the sizes of the parallel axes. ``backend`` is the process group's; ``all_reduce`` a backend of
    Twinrun's all-reduce by name; ``order`` the order in which it sums. Times are in seconds.
    """

    command: tuple[str, ...] = ()
    nnodes: int | None = None
    node_rank: int | None = None
    nproc_per_node: int | None = None
    dist_init_addr: str | None = None
    tp: int | None = None
    dp: int | None = None
    pp: int | None = None
    cp: int | None = None
    ep: int | None = None
    backend: str | None = None
    all_reduce: str | None = None
    order: str | None = None
    cuda_graph: bool | None = None
    deterministic: bool | None = None
    keep_in_node_all_reduce: bool | None = None
    max_restarts: int = 0
    rendezvous_timeout_s: float | None = None
    all_reduce_timeout_s: float | None = None

    @property
    def nodes(self) -> int:
        """How many nodes, one where nothing was said."""
        return 1 if self.nnodes is None else self.nnodes

    @property
    def ranks_per_node(self) -> int:
        """How many ranks a node, one where nothing was said."""
        return 1 if self.nproc_per_node is None else self.nproc_per_node

    @property
    def ranks(self) -> int:
        """How many ranks in all."""
        return self.nodes * self.ranks_per_node

    @property
    def axes(self) -> dict[str, int]:
        """The sizes of the parallel axes that were given."""
        sizes = {axis: getattr(self, axis) for axis in AXES}
        return {axis: size for axis, size in sizes.items() if size is not None}

    @property
    def tensor_groups_span_nodes(self) -> bool:
        """Whether some tensor-parallel group must lie on several nodes.

        Tensor-parallel ranks are neighbours, as every engine places them; with no ``tp`` given,
        the one group known is that of all ranks.
        """
        if self.nodes <= 1:
            return False
        group = self.ranks if self.tp is None else self.tp
        return group < 1 or self.ranks_per_node % group != 0


@dataclass(frozen=True, slots=True)
class Platform:
    """What the rules need to know of this machine; ``gpus`` None where nobody looked."""

    gpus: int | None = None
    vendor: str = ""
    how: str = "not looked"
