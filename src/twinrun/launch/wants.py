"""Everything that pairs of options are judged by, gathered from wherever it was said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from twinrun.env import variables as V
from twinrun.launch.args import LaunchArgs


@dataclass(frozen=True, slots=True)
class Observers:
    """What the commands around this launch observe or graft; empty where they do not.

    ``mode`` is the capture's (``values`` or ``stats``), ``live_graft`` the address of a running
    peer, ``offline_graft`` the capture that stands in for one; ``b2t`` and ``t2b`` the filters.
    """

    mode: str = ""
    live_graft: str = ""
    offline_graft: str = ""
    b2t: str = ""
    t2b: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str], mode: str = "") -> Observers:
        """What the variables of ``twinrun run`` and ``twinrun graft`` say, and the capture's mode."""
        return cls(
            mode=mode,
            live_graft=V.GRAFT_ADDRESS.get(environ) or "",
            offline_graft=V.GRAFT_FROM.get(environ) or "",
            b2t=V.GRAFT_B2T.get(environ) or "",
            t2b=V.GRAFT_T2B.get(environ) or "",
        )


@dataclass(frozen=True, slots=True)
class Wants:
    """The options that conflicts are about, with defaults that conflict with nothing."""

    all_reduce: str = "auto"
    order: str = "ranks"
    deterministic: bool = False
    backend: str = ""
    cuda_graph: bool = False
    nodes: int = 1
    keep_in_node: bool = False
    tensor_groups_span_nodes: bool = False
    observers: Observers = Observers()


def gather(args: LaunchArgs, environ: Mapping[str, str], observers: Observers) -> Wants:
    """The wants of a launch whose flags have been written to ``environ``."""
    return replace(
        of_environment(environ),
        backend=args.backend or "",
        nodes=args.nodes,
        tensor_groups_span_nodes=args.tensor_groups_span_nodes,
        observers=observers,
    )


def of_environment(environ: Mapping[str, str]) -> Wants:
    """What the variables alone ask for."""
    return Wants(
        all_reduce=V.ALL_REDUCE.get(environ),
        order=V.ALL_REDUCE_ORDER.get(environ),
        deterministic=V.DETERMINISTIC.get(environ),
        cuda_graph=V.CUDA_GRAPH.get(environ),
        keep_in_node=V.KEEP_IN_NODE_ALL_REDUCE.get(environ),
    )
