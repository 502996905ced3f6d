"""``twinrun bench``: what this machine reaches, beside the usual ways, measured in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twinrun.env import variables as V
from twinrun.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from twinrun.collectives.contest import Contest, Timing

KIB = 1 << 10
SIZES = (0, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
DTYPES = ("bfloat16", "float16", "float32")


@click.group()
def command() -> None:
    """Measure what this machine reaches."""


@command.command("all-reduce")
@click.option("--dtype", type=click.Choice(DTYPES), default="bfloat16", show_default=True)
@click.option("--most", type=int, default=64 << 20, show_default=True, help="Largest size, bytes.")
@click.option("--only", multiple=True, help="A contender to time; may be given again.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here.")
def all_reduce(dtype: str, most: int, only: tuple[str, ...], path: Path | None) -> None:
    """All-reduce in CUDA graphs, in microseconds per operation.

    Start it with one process a GPU:

    torchrun --standalone --nproc-per-node 4 --no-python twinrun bench all-reduce

    Sums are checked before anything is timed. A figure is the median of 9 replays of a graph of
    100 (to 1 MiB), 40 (to 8 MiB) or 20 operations over 4 rotating buffer pairs, started together
    by a barrier on the GPUs; of each replay the slowest rank counts.
    """
    import torch
    import torch.distributed as dist

    from twinrun.collectives.contest import CONTENDERS, Contest

    wrong = [name for name in only if name not in CONTENDERS]
    if wrong:
        raise UsageError(
            f"there is no contender {wrong[0]!r}.", expected=f"one of {', '.join(CONTENDERS)}"
        )
    rank, local = V.RANK.get(), V.LOCAL_RANK.get()
    if rank is None or local is None or not torch.cuda.is_available():
        raise UsageError(
            "bench all-reduce needs one process a GPU.",
            seen=f"RANK {rank}, LOCAL_RANK {local}, CUDA {torch.cuda.is_available()}",
            do="torchrun --standalone --nproc-per-node 4 --no-python twinrun bench all-reduce",
        )
    torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl")
    contest = Contest(torch.device("cuda", local), getattr(torch, dtype), most)
    sizes = [KIB << power for power in SIZES if KIB << power <= most]
    report = _measure(contest, sizes, only or CONTENDERS, rank == 0)
    report |= {"command": _command(), "dtype": dtype, "machine": _machine()}
    if rank == 0 and path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    contest.close()
    dist.destroy_process_group()


def _from_checkout(name: str, arguments: tuple[str, ...]) -> int:
    """Run ``benchmarks/<name>.py`` of the source tree that this package lies in; its exit code."""
    root = Path(__file__).resolve().parents[3]
    script = root / "benchmarks" / f"{name}.py"
    if not script.is_file():
        raise UnavailableError(
            f"bench {name} is not a part of the installed package.",
            seen=f"no {script}",
            expected="a checkout of Twinrun's source, installed with pip install -e",
            do=f"run it there: python benchmarks/{name}.py",
        )
    return subprocess.run([sys.executable, str(script), *arguments], check=False).returncode


def _passes_on(name: str, help_text: str) -> None:
    @command.command(
        name,
        help=help_text,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[--help | OPTIONS]")
    def passed_on(arguments: tuple[str, ...]) -> int:
        return _from_checkout(name, arguments)


_passes_on("graft", "A graft between processes beside a memory copy; from a checkout.")
_passes_on("capture", "What recording costs the caller; from a checkout.")
_passes_on("compare", "A comparison beside a plain torch loop; from a checkout.")


def _measure(
    contest: Contest, sizes: list[int], contenders: tuple[str, ...], shown: bool
) -> dict[str, Any]:
    checks = {nbytes: contest.check(nbytes, seed) for seed, nbytes in enumerate(sizes)}
    eager_us = contest.eager_us(KIB)
    timings: list[Timing] = []
    if shown:
        click.echo(f"sums are right and alike on all ranks; eager call of 1 KiB {eager_us:.1f} us")
        click.echo("    bytes" + "".join(f"{name:>16}" for name in contenders) + "   used")
    for nbytes in sizes:
        row = [contest.time(name, nbytes) for name in contenders]
        timings += row
        if shown:
            cells = "".join(f"{timing.us:16.2f}" for timing in row)
            click.echo(f"{nbytes:9}{cells}   {row[0].used}")
    return {
        "eager_us": eager_us,
        "errors": {str(nbytes): errors for nbytes, errors in checks.items()},
        "rows": [[t.nbytes, t.contender, round(t.us, 3), t.used] for t in timings],
    }


def _command() -> str:
    """What to type to get the same again."""
    size = V.WORLD_SIZE.get()
    start = f"torchrun --standalone --nproc-per-node {size} --no-python twinrun bench all-reduce"
    return " ".join([start, *(text for text in sys.argv[2:] if text != "all-reduce")])


def _machine() -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    return {
        "gpu": torch.cuda.get_device_name(),
        "gpus": dist.get_world_size(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),  # type: ignore[no-untyped-call]
        "date": time.strftime("%Y-%m-%d"),
    }
