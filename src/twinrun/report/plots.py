"""The report's charts as PNG files, drawn with matplotlib (the ``plots`` extra)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from twinrun.comparison.picture import Picture
from twinrun.errors import TwinrunError
from twinrun.report.document import Document, Dot

# The same colours and shapes as on the page: no verdict is told by colour alone.
_MARKS: dict[str, tuple[str, str, bool]] = {
    "equal": ("#4d8063", ".", True), "close": ("#17683a", "o", False), "healed": ("#0b6b6b", "p", False),
    "allowed": ("#2d5f8f", "D", False), "undecided": ("#855300", "^", False), "differs": ("#b3201b", "x", True),
    "unmatched": ("#6a3d9a", "s", False), "unreadable": ("#5b5f65", "s", True),
}  # fmt: skip
_FLOOR, _ISOLATED = "#6d7278", "#6a3d9a"
_DPI = 110


def write_plots(directory: Path, document: Document) -> int:
    """Write ``error.png`` and ``point-N.png`` for each point that has a picture; return how many.

    Raises TwinrunError where a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def saved(name: str, figure: Any) -> None:
        FigureCanvasAgg(figure)
        figure.savefig(directory / name, dpi=_DPI)

    width = len(str(len(document.points)))
    drawn = [dot for dot in document.points if dot.picture]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        saved("error.png", _errors(Figure(figsize=(11, 4.5), layout="constrained"), document))
        for dot in drawn:
            figure = _point(Figure(figsize=(11, 4.5), layout="tight"), dot)
            saved(f"point-{dot.position:0{width}d}.png", figure)
    except OSError as error:
        raise TwinrunError(
            f"the plots cannot be written into {str(directory)!r}",
            seen=error.strerror or str(error),
        ) from error
    return len(drawn) + 1


def _errors(figure: Any, document: Document) -> Any:
    """Error by order of execution: equal bits at the lower edge, what has no figure at the upper."""
    axes = figure.subplots()
    dots = document.points
    known = [v for d in dots for v in (d.error, d.allowed) if v is not None and _drawable(v)]
    low, high = min(known, default=1e-8) / 10, max(known, default=1.0) * 10
    for verdict, (colour, marker, filled) in _MARKS.items():
        held = [dot for dot in dots if dot.verdict == verdict]
        if held:
            heights = [_height(dot.error, low, high) for dot in held]
            axes.plot([d.position for d in held], heights, marker, color=colour, markersize=5,
                      markerfacecolor=colour if filled else "none", label=f"{verdict} ({len(held)})")  # fmt: skip
    apart = [dot for dot in dots if dot.isolated]
    if apart:
        heights = [_height(dot.isolated.error, low, high) for dot in apart if dot.isolated]
        axes.plot([d.position for d in apart], heights, "d", color=_ISOLATED, markersize=5, label="isolated")  # fmt: skip
    floors = [dot for dot in dots if _drawable(dot.allowed)]
    axes.plot([d.position for d in floors], [d.allowed for d in floors], color=_FLOOR, linewidth=1, label="allowed")  # fmt: skip
    axes.plot([d.position for d in floors], [d.undecided_to for d in floors], color=_FLOOR, linewidth=0.8, linestyle="--", label="above it differs")  # fmt: skip
    axes.set(yscale="log", ylim=(low / 2, high * 2), xlabel="point, in order of execution", ylabel="relative L2")  # fmt: skip
    axes.set_title(_plain(document.title), loc="left", fontsize=11)
    axes.legend(fontsize=8, loc="upper left", ncols=4, framealpha=0.9)
    axes.grid(True, axis="y", alpha=0.3)
    return figure


def _point(figure: Any, dot: Dot) -> Any:
    """One point: histogram, map, and its ranks where there are several."""
    picture = dot.picture
    assert picture is not None
    panes = figure.subplots(1, 3 if picture.ranks else 2)
    _histogram(panes[0], dot, picture)
    _heat(panes[1], picture)
    if picture.ranks:
        _ranks(panes[2], picture)
    figure.suptitle(_plain(f"{dot.position}  {dot.name}  {dot.verdict}"), fontsize=10)
    return figure


def _histogram(axes: Any, dot: Dot, picture: Picture) -> None:
    held = picture.histogram
    step = 1 / held.per_decade
    filled = [at for at, count in enumerate(held.counts) if count]
    left = [10 ** (held.lowest + at * step) for at in filled]
    wide = [value * (10**step - 1) for value in left]
    axes.bar(left, [held.counts[at] for at in filled], wide, align="edge", color="#3f56a0")
    if _drawable(dot.worst_allowed):
        axes.axvline(dot.worst_allowed, color=_FLOOR, linestyle="--", label="allowed")
        axes.legend(fontsize=8)
    axes.set(xscale="log", xlabel="|a-b| over the row's RMS", ylabel="elements")
    axes.set_title(f"{held.zeros:,} without error, {held.nonfinite:,} not finite", fontsize=9)


def _heat(axes: Any, picture: Picture) -> None:
    cells = [[math.log10(v) if _drawable(v) else math.nan for v in row] for row in picture.heat.cells]  # fmt: skip
    edges = (0, picture.heat.columns, picture.heat.rows, 0)
    image = axes.imshow(cells, aspect="auto", cmap="cividis", extent=edges, interpolation="nearest")
    axes.set(xlabel="channels", ylabel="positions")
    axes.set_title("largest error in each cell (log10; blank: none, or not finite)", fontsize=9)
    axes.figure.colorbar(image, ax=axes)


def _ranks(axes: Any, picture: Picture) -> None:
    errors = [rank.relative_l2 for rank in picture.ranks]
    axes.bar([str(rank.rank) for rank in picture.ranks], errors, color="#3f56a0")
    axes.set(xlabel=f"rank of the {picture.rank_side}", ylabel="relative L2")


def _drawable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _height(error: float | None, low: float, high: float) -> float:
    if error is None or not math.isfinite(error):
        return high
    return error if error > 0 else low


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
