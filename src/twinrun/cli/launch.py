"""``twinrun launch``: start this node's ranks, after the rules had their say."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

import click

from twinrun.env import declared, environment
from twinrun.env import variables as V
from twinrun.launch.args import LaunchArgs
from twinrun.launch.arguments import BACKENDS
from twinrun.launch.decision import Resolved
from twinrun.launch.render import changed, command_line, shell_text
from twinrun.launch.rules import resolve
from twinrun.launch.start import become, check_command, look
from twinrun.launch.wants import Observers

_LEVELS = ("debug", "info", "warning", "error")


@click.command("launch")
@click.option("--nnodes", type=int, metavar="N", help="Nodes of the run. Default: 1, or Slurm's.")
@click.option("--node-rank", type=int, metavar="N", help="This node's number, from 0.")
@click.option(
    "--nproc-per-node", type=int, metavar="N", help="Ranks on this node. Default: one a GPU, or 1."
)
@click.option("--dist-init-addr", metavar="HOST:PORT", help="Where the nodes meet: node 0's.")
@click.option("--tp", type=int, metavar="N", help="Tensor-parallel ranks.")
@click.option(
    "--dp", type=int, metavar="N", help="Data-parallel ranks. Default: what the others leave."
)
@click.option("--pp", type=int, metavar="N", help="Pipeline stages.")
@click.option("--cp", type=int, metavar="N", help="Context-parallel ranks.")
@click.option(
    "--ep",
    type=int,
    metavar="N",
    help="Expert-parallel ranks, laid over those of a pipeline stage.",
)
@click.option("--backend", type=click.Choice(BACKENDS), help="The process group's backend.")
@click.option(
    "--all-reduce",
    type=click.Choice(V.ALL_REDUCE.kind.options),  # type: ignore[attr-defined]
    help="An all-reduce backend by name instead of the chooser's.",
)
@click.option(
    "--order",
    type=click.Choice(V.ALL_REDUCE_ORDER.kind.options),  # type: ignore[attr-defined]
    help="The order in which an all-reduce sums.",
)
@click.option(
    "--deterministic", is_flag=True, default=None, help="Insist on that order everywhere."
)
@click.option("--cuda-graph", is_flag=True, default=None, help="The program captures CUDA graphs.")
@click.option(
    "--keep-in-node-all-reduce",
    is_flag=True,
    default=None,
    help="Across nodes, keep symmetric memory for groups inside one node.",
)
@click.option(
    "--all-reduce-timeout", "all_reduce_timeout_s", type=float, metavar="S",
    help="Seconds until a missing rank is named.",
)  # fmt: skip
@click.option(
    "--rendezvous-timeout", "rendezvous_timeout_s", type=float, metavar="S",
    help="Seconds until a missing node is given up (torchrun's).",
)  # fmt: skip
@click.option("--max-restarts", type=int, default=0, metavar="N", help="Restarts (torchrun's).")
@click.option("--dry-run", is_flag=True, help="Print what would run, and why; start nothing.")
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD...")
def command(dry_run: bool, program: tuple[str, ...], **given: Any) -> int:
    """Start CMD on every rank of this node through torchrun, with a settled environment.

    CMD is a script (train.py), a module (-m pkg) or any program. Rules adjust or refuse what was
    asked for and say why (docs/launch.md); --dry-run shows all of it. Inside srun or mpirun, nodes,
    node rank and address are taken from there. To observe the run, put twinrun run --out DIR -- in
    front of it.
    """
    environ = environment()
    args = LaunchArgs(command=program, **given)
    platform = look(V.CUDA_VISIBLE_DEVICES.get(environ))
    observers = Observers.of(environ, _observed_mode())
    resolved = resolve(args, environ, platform, observers)
    if not dry_run:
        _say_decisions(resolved, V.LOG.get(environ) or "warning")
        check_command(program, environ)
        become(resolved)
    _show(resolved)
    return 0


def _observed_mode() -> str:
    """The mode of the capture that ``twinrun run`` around this launch writes, or nothing."""
    directory = V.OUT.get()
    if directory is None:
        return ""
    # Read as text: the recorder imports torch, which would cost this process a second.
    try:
        mode = json.loads((directory / "run.json").read_text(encoding="utf-8"))["options"]["mode"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # the processes that join the capture say what is wrong with it
    return mode if isinstance(mode, str) else ""


def _say_decisions(resolved: Resolved, least: str) -> None:
    for decision in resolved.decisions:
        if _LEVELS.index(decision.level) >= _LEVELS.index(least):
            click.echo(f"twinrun: {decision.level} {decision}", err=True)


def _show(resolved: Resolved) -> None:
    args = resolved.args
    click.echo(f"node {args.node_rank or 0} of {args.nodes}, {args.ranks_per_node} ranks on it")
    click.echo("decisions")
    for decision in resolved.decisions:
        click.echo(f"  {decision.level:<8} {decision}")
    click.echo("environment")
    for name, value in changed(resolved, environment()).items():
        click.echo(f"  {name}={value}{_why(name, resolved)}")
    click.echo("command")
    click.echo(f"  {shlex.join(command_line(resolved, sys.executable))}")
    click.echo("as one line")
    click.echo(f"  {shell_text(resolved, environment(), sys.executable)}")


def _why(name: str, resolved: Resolved) -> str:
    variable = declared().get(name)
    if variable is None or variable.internal:
        return ""
    return f"   {variable.source(resolved.environment)}"
