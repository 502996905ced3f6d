"""A tensor's values in a few lines: all of a small one, the edges of a large one."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from twinrun.report.figures import element, shape

_WHOLE = 64  # elements up to which a tensor is shown whole
_EDGE = 3  # of a larger one: the first and last elements of its last two dims
_OUTER_EDGE = 1  # and of the dims before those
_CELL = 8  # the width of most values with four digits


def value_rows(tensor: torch.Tensor, index: tuple[int, ...] = ()) -> Iterator[tuple[str, str]]:
    """Rows ``(index of the row, its values)`` along the last dim.

    ``index`` is where in a larger tensor this one lies; it leads every row's own. Only the elements that are shown are read, so that a huge mapped tensor costs nothing.
    """
    if tensor.numel():
        yield from _rows(tensor, index, whole=tensor.numel() <= _WHOLE)


def _rows(tensor: torch.Tensor, index: tuple[int, ...], whole: bool) -> Iterator[tuple[str, str]]:
    if tensor.dim() == 0:
        yield shape(index), element(tensor.item())
        return
    if tensor.dim() == 1:
        cells = ["..." if i is None else element(tensor[i].item()) for i in _picked(tensor, whole)]
        yield _label(index, ":"), "  ".join(cell.rjust(_CELL) for cell in cells)
        return
    for i in _picked(tensor, whole):
        if i is None:
            yield _label(index, "..."), "..."
        else:
            yield from _rows(tensor[i], (*index, i), whole)


def _picked(tensor: torch.Tensor, whole: bool) -> list[int | None]:
    """Indices to show of the first dim: all, or its edges with None for the gap between."""
    length, edge = tensor.shape[0], _EDGE if tensor.dim() <= 2 else _OUTER_EDGE
    if whole or length <= 2 * edge + 1:
        return list(range(length))
    return [*range(edge), None, *range(length - edge, length)]


def _label(index: tuple[int, ...], last: str) -> str:
    return f"[{', '.join([*map(str, index), last])}]"
