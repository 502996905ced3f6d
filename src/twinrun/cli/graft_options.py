"""Options of a graft, the same for ``twinrun graft`` and ``twinrun run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from twinrun.env.kinds import Size

if TYPE_CHECKING:
    from twinrun.grafting.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


class Bytes(click.ParamType[int]):
    """A number of bytes such as 256MiB."""

    name = "size"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return value if isinstance(value, int) else Size().parse(value)
        except ValueError as expected:
            self.fail(f"{value!r} is not {expected}", param, ctx)


_SHARED = (
    click.option("--b2t", default="", metavar="EXPR", help="Points that flow baseline to target."),
    click.option("--t2b", default="", metavar="EXPR", help="Points that flow target to baseline."),
    click.option(
        "--transform",
        "transforms",
        multiple=True,
        metavar="[GLOB=]PKG.MOD.FN",
        help="Called on the receiving side in place of resharding.",
    ),
    click.option(
        "--graft-dims",
        "dims",
        multiple=True,
        metavar="[ROLE:]GLOB=DIMS",
        help="The layout of points that carry none, e.g. 'target:*.q_proj:output=b s h[tp]'.",
    ),
    click.option(
        "--graft-layouts",
        "layouts",
        type=click.Path(resolve_path=True),
        metavar="FILE",
        help="JSON, for each side name globs with layouts, where --graft-dims names none.",
    ),
    click.option("--graft-address", "address", metavar="HOST:PORT", help="Where the jobs meet."),
    click.option(
        "--graft-timeout", "timeout_s", type=float, metavar="SECONDS", help="For one point. [300]"
    ),
    click.option(
        "--graft-meeting-timeout",
        "meeting_timeout_s",
        type=float,
        metavar="SECONDS",
        help="For the other job to come. [1800]",
    ),
    click.option(
        "--graft-buffer",
        "buffer_bytes",
        type=Bytes(),
        help="What a rank stages for receivers that are elsewhere. [1GiB]",
    ),
    click.option(
        "--graft-log",
        "log",
        type=click.Choice(["full", "brief", "off"]),
        help="A line a graft with statistics, without, or none. [full]",
    ),
    click.option(
        "--graft-gradient",
        "gradient",
        type=click.Choice(["through", "leaf"]),
        help="At module boundaries, gradients go on through a replaced value or end there. [through]",
    ),
    click.option("--strict", is_flag=True, help="Stop at the first point that fails."),
)

_ROLE = (
    click.option(
        "--graft-role",
        "role",
        type=click.Choice(["baseline", "target"]),
        help="Take part in a graft, as this side of it (docs/graft.md).",
    ),
    click.option("--graft-baseline-ranks", "baseline_ranks", type=int, metavar="N"),
    click.option("--graft-target-ranks", "target_ranks", type=int, metavar="N"),
    click.option(
        "--from", "source", metavar="CAPTURE", help="A capture that stands in for the baseline."
    ),
)


def shared_options(command: F) -> F:
    """What both commands take."""
    for option in reversed(_SHARED):
        command = option(command)
    return command


def role_options(command: F) -> F:
    """What ``twinrun run`` takes beside ``shared_options``: which side it is."""
    for option in reversed((*_ROLE, *_SHARED)):
        command = option(command)
    return command


def settings_of(**given: Any) -> Settings:
    """Settings from options; what was left out has its default. UsageError with all problems."""
    from twinrun.grafting.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None}).check()


def asked_for(given: dict[str, Any]) -> bool:
    """Whether ``twinrun run`` was told to take part in a graft; UsageError for options without a role."""
    from twinrun.errors import UsageError

    if given.get("source") and not given.get("role"):
        given["role"] = "target"
    if given.get("role"):
        return True
    useless = [name for name, value in given.items() if value not in (None, "", (), False)]
    if useless:
        raise UsageError(
            "options of a graft were given, but not which side of it this is",
            seen=", ".join(useless),
            do="add --graft-role baseline or --graft-role target",
        )
    return False
