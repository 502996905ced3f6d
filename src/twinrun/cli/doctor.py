"""``twinrun doctor``: which all-reduce would be used here or on a cluster in words, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from twinrun.cli.doctor_page import Checkup, checkup_lines, found_lines
from twinrun.collectives import semaphores
from twinrun.collectives.described import Described, facts_of
from twinrun.collectives.facts import Request
from twinrun.collectives.plan import SUMMABLE
from twinrun.env import environment
from twinrun.env import variables as V
from twinrun.env.kinds import Size
from twinrun.errors import UsageError
from twinrun.launch.args import LaunchArgs, Platform
from twinrun.launch.conflicts import CONFLICTS
from twinrun.launch.rules import resolve
from twinrun.topology.machine import Machine, machine

_SHORT = {
    "bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "fp64": "float64",
}  # fmt: skip
_WORDS = ("nnodes", "nproc_per_node", "device", "gpu")


@click.command("doctor")
@click.option("--nnodes", type=int, metavar="N", help="Describe a cluster: its nodes.")
@click.option(
    "--nproc-per-node", type=int, metavar="N", help="Ranks on each. Default: the GPUs here."
)
@click.option("--tp", type=int, metavar="N", help="Tensor-parallel ranks: the group asked about.")
@click.option("--device", type=click.Choice(["cuda", "hip", "cpu"]), help="What the ranks sum on.")
@click.option("--gpu", metavar="NAME", help="The GPUs' name, e.g. 'NVIDIA H200'.")
@click.option(
    "--backend", metavar="NAME", help="The process group's. Default: nccl, or gloo on CPU."
)
@click.option("--bytes", "nbytes", metavar="SIZE", help="Only this size, e.g. 96KiB.")
@click.option(
    "--dtype", default="bf16", show_default=True, metavar="TYPE", help="bf16, fp32, int32..."
)
@click.option(
    "--order",
    type=click.Choice(["ranks", "tree", "any"]),
    help="The order asked for.",
)
@click.option("--deterministic", is_flag=True, default=None, help="As for twinrun launch.")
@click.option("--cuda-graph", is_flag=True, default=None, help="As for twinrun launch.")
@click.option(
    "--keep-in-node-all-reduce", is_flag=True, default=None, help="As for twinrun launch."
)
@click.option(
    "--conflicts", is_flag=True, help="List the pairs of options that cannot go together."
)
def command(conflicts: bool, **given: Any) -> int:
    """Say what this machine is, which all-reduce would be used at each size, why, and what to change.

    With --nnodes, --nproc-per-node, --device or --gpu it answers for such a cluster instead, on any
    machine and without torch.
    """
    if conflicts:
        for row in CONFLICTS:
            click.echo(f"{row}\n  do        {row.do}")
        return 0
    for line in lines(environment(), given):
        click.echo(line)
    return 0


def lines(environ: Mapping[str, str], given: Mapping[str, Any]) -> list[str]:
    """Everything that the command prints on this machine."""
    here = machine(environ)
    missing = () if _in_words(given) else _missing(here, _device(here, given))
    return lines_for(here, environ, given, missing)


def lines_for(
    here: Machine,
    environ: Mapping[str, str],
    given: Mapping[str, Any],
    missing: tuple[tuple[str, str], ...],
) -> list[str]:
    """Everything that it prints on the machine ``here``, which lacks ``missing``. Pure."""
    top = [] if _in_words(given) else [*found_lines(here), ""]
    return [*top, *checkup_lines(_checkup(here, environ, given, missing))]


def _in_words(given: Mapping[str, Any]) -> bool:
    return any(given.get(word) is not None for word in _WORDS)


def _checkup(
    here: Machine,
    environ: Mapping[str, str],
    given: Mapping[str, Any],
    missing: tuple[tuple[str, str], ...],
) -> Checkup:
    resolved = resolve(_launch(here, given), environ, Platform())
    args, device = resolved.args, _device(here, given)
    group = Described(
        size=given.get("tp") or args.ranks,
        nodes=args.nodes,
        ranks_per_node=args.ranks_per_node,
        device=device,
        library=given.get("backend") or ("gloo" if device == "cpu" else "nccl"),
        gpu=given.get("gpu") or ("" if device == "cpu" else here.gpus.name),
        capability=here.gpus.capability,
        peer_access=None if _in_words(given) else _peers(here),
        missing=missing,
    )
    return Checkup(
        facts_of(group, resolved.environment),
        _request(given, resolved.environment),
        given.get("nbytes") is not None,
        resolved.environment,
        resolved.decisions,
    )


def _launch(here: Machine, given: Mapping[str, Any]) -> LaunchArgs:
    nodes = given.get("nnodes") or 1
    return LaunchArgs(
        command=("CMD",),
        nnodes=nodes,
        node_rank=0,
        # On a machine without GPUs a group of one would answer nothing.
        nproc_per_node=given.get("nproc_per_node") or here.visible.count or 2,
        dist_init_addr="node0:29500" if nodes > 1 else None,
        tp=given.get("tp"),
        order=given.get("order"),
        deterministic=given.get("deterministic"),
        cuda_graph=given.get("cuda_graph"),
        keep_in_node_all_reduce=given.get("keep_in_node_all_reduce"),
    )


def _request(given: Mapping[str, Any], environ: Mapping[str, str]) -> Request:
    dtype = _SHORT.get(given["dtype"], given["dtype"])
    if dtype not in SUMMABLE:
        raise UsageError(
            f"--dtype {given['dtype']!r} is unknown.", expected=", ".join((*_SHORT, *SUMMABLE))
        )
    return Request(
        nbytes=_bytes(given.get("nbytes")),
        dtype=dtype,
        order=V.ALL_REDUCE_ORDER.get(environ),
        order_asked=V.ALL_REDUCE_ORDER.is_set(environ),
        capturing=bool(given.get("cuda_graph")),
    )


def _bytes(text: str | None) -> int:
    try:
        return 0 if text is None else Size().parse(text)
    except ValueError as wanted:
        raise UsageError(f"--bytes {text!r} is no size.", expected=str(wanted)) from None


def _device(here: Machine, given: Mapping[str, Any]) -> str:
    """In words without a word on the device, a cluster is one of GPUs."""
    if given.get("device"):
        return str(given["device"])
    if here.gpus.vendor == "amd":
        return "hip"
    return "cuda" if _in_words(given) or here.visible.count else "cpu"


def _peers(here: Machine) -> bool | None:
    """Whether the driver says that all GPUs here reach each other; None where it says nothing."""
    links = here.gpus.links
    return all(link.kind != "none" for link in links) if links else None


def _missing(here: Machine, device: str) -> tuple[tuple[str, str], ...]:
    """What this machine lacks for a backend, as torch finds it; nothing is opened to a peer."""
    if device == "cpu":
        reason = semaphores.why_not() or (here.shared_bytes.value is None and here.shared_bytes.how)
        return (("shared_memory", reason),) if reason else ()
    try:
        import torch

        from twinrun.collectives import probe
    except ImportError as error:
        return tuple((name, f"torch does not import ({error})") for name in ("symmetric", "ipc"))
    if not torch.cuda.is_available():
        return tuple((name, "torch sees no GPU") for name in ("symmetric", "ipc", "aiter"))
    return tuple(probe.missing(torch.device("cuda", 0)).items())
