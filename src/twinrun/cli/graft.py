"""``twinrun graft``: put one run's tensors into the other while both run, or from a capture."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from twinrun.env.kinds import Size

NO_WORK = 2
CONTAINED = 3


class _Bytes(click.ParamType[int]):
    name = "size"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return value if isinstance(value, int) else Size().parse(value)
        except ValueError as expected:
            self.fail(f"{value!r} is not {expected}", param, ctx)


@click.command("graft")
@click.argument("capture", required=False, metavar="[CAPTURE]")
@click.option("--baseline", metavar="CMD", help="The run that is trusted, as one quoted command.")
@click.option("--target", required=True, metavar="CMD", help="The run under test.")
@click.option("--b2t", default="", metavar="EXPR", help="Points that flow baseline to target.")
@click.option("--t2b", default="", metavar="EXPR", help="Points that flow target to baseline.")
@click.option(
    "--transform",
    "transforms",
    multiple=True,
    metavar="[GLOB=]pkg.mod.fn",
    help="Called on the receiving side in place of resharding.",
)
@click.option(
    "--dims",
    multiple=True,
    metavar="[ROLE:]GLOB=DIMS",
    help="The layout of points that carry none, e.g. 'target:*.q_proj:output=b s h[tp]'.",
)
@click.option("--baseline-mesh", default="", metavar="tp=4", help="The baseline's rank axes.")
@click.option("--target-mesh", default="", metavar="tp=2", help="The target's rank axes.")
@click.option("--baseline-gpus", default="", metavar="0,1", help="CUDA_VISIBLE_DEVICES there.")
@click.option("--target-gpus", default="", metavar="2,3", help="CUDA_VISIBLE_DEVICES there.")
@click.option("--baseline-ranks", type=int, metavar="N", help="How many ranks it must have.")
@click.option("--target-ranks", type=int, metavar="N", help="How many ranks it must have.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also capture both runs into DIR/baseline and DIR/target; must not exist.",
)
@click.option(
    "--taps", default="blocks", show_default=True, metavar="WORD|GLOBS", help="What --out records."
)
@click.option("--graft-address", "address", metavar="HOST:PORT", help="Where the two jobs meet.")
@click.option("--graft-timeout", "timeout_s", default=300.0, show_default=True, metavar="SECONDS")
@click.option(
    "--graft-meeting-timeout",
    "meeting_timeout_s",
    default=1800.0,
    show_default=True,
    metavar="SECONDS",
)
@click.option("--graft-buffer", "buffer_bytes", type=_Bytes(), default="1GiB", show_default=True)
@click.option(
    "--graft-log",
    "log",
    type=click.Choice(["full", "brief", "off"]),
    default="full",
    show_default=True,
)
@click.option(
    "--gradient",
    type=click.Choice(["through", "leaf"]),
    default="through",
    show_default=True,
    help="Whether gradients go on through a replaced value.",
)
@click.option("--strict", is_flag=True, help="Stop at the first point that fails.")
def command(
    capture: str | None,
    baseline: str | None,
    target: str,
    b2t: str,
    t2b: str,
    transforms: tuple[str, ...],
    dims: tuple[str, ...],
    baseline_mesh: str,
    target_mesh: str,
    baseline_gpus: str,
    target_gpus: str,
    baseline_ranks: int | None,
    target_ranks: int | None,
    out: Path | None,
    taps: str,
    address: str | None,
    timeout_s: float,
    meeting_timeout_s: float,
    buffer_bytes: int,
    log: str,
    gradient: str,
    strict: bool,
) -> int:
    """Run two programs and put tensors of one into the other, at the points that a filter names.

    Module inputs and outputs, dumps, parameters (kind == "parameter") and gradients are grafted with
    no change in either program, resharded where the layouts are known. With CAPTURE, that capture
    stands in for the baseline. Returns a program's own exit code where it is not zero, else 2 where
    nothing was grafted, 3 where something failed that the programs were spared.
    """
    from twinrun.errors import UsageError
    from twinrun.grafting.account import read_account
    from twinrun.grafting.jobs import Side, free_port, new_token, run_sides, split_command
    from twinrun.grafting.settings import Settings
    from twinrun.recorder.options import Options
    from twinrun.recorder.taps import Taps

    if (capture is None) == (baseline is None):
        raise UsageError(
            "a graft has one baseline",
            seen="both CAPTURE and --baseline" if capture else "neither CAPTURE nor --baseline",
            do='twinrun graft runs/a --target "CMD", or --baseline "CMD" --target "CMD"',
        )
    Taps.parse(taps)
    common: dict[str, Any] = {
        "address": address or f"127.0.0.1:{free_port()}",
        "b2t": b2t,
        "t2b": t2b,
        "transforms": transforms,
        "dims": dims,
        "baseline_ranks": baseline_ranks,
        "target_ranks": target_ranks,
        "timeout_s": timeout_s,
        "meeting_timeout_s": meeting_timeout_s,
        "buffer_bytes": buffer_bytes,
        "log": log,
        "strict": strict,
        "gradient": gradient,
        "source": str(Path(capture).absolute()) if capture else "",
        "token": "" if capture else new_token(),
    }
    with tempfile.TemporaryDirectory(prefix="twinrun-graft-") as held:
        place = out if out is not None else Path(held) / "runs"
        sides = []
        for role, text, mesh, gpus in (
            ("baseline", baseline, baseline_mesh, baseline_gpus),
            ("target", target, target_mesh, target_gpus),
        ):
            if text is None:
                continue
            directory = place / role
            settings = Settings(
                role=role, mesh=mesh, journal=str(directory / "graft"), **common
            ).check()
            options = Options(taps=taps if out is not None else "none", mesh=mesh)
            words = split_command(text, f"--{role}")
            sides.append(Side(words, settings, directory, options, gpus))
        if out is not None and out.exists():
            raise UsageError(f"{out} exists", do="give another --out")
        place.mkdir(parents=True)
        codes = run_sides(sides, _say)
        account = read_account([side.directory for side in sides])
    for line in account.lines():
        _say(line)
    failing = [code for code in reversed(codes) if code]
    if failing:
        return failing[0]
    if not account.received:
        _say(_nothing(account.processes))
        return NO_WORK
    return CONTAINED if account.contained else 0


def _nothing(processes: int) -> str:
    if not processes:
        return "NOBODY JOINED   no observed module was called in either program, and nothing grafted by name"
    return "NOTHING GRAFTED   no point that both programs reach matched --b2t or --t2b"


def _say(line: str) -> None:
    click.echo(f"twinrun: {line}", err=True)
