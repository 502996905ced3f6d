"""The one layout that explains shapes, where nothing states it. Shapes alone: values are not looked at."""

from __future__ import annotations

from collections.abc import Mapping

from twinrun.errors import LayoutError
from twinrun.layout.dims import Dims
from twinrun.layout.fits import fits
from twinrun.layout.mesh import Mesh

TOLD = 4


def only_fit(
    shards: Mapping[int, tuple[Mesh, tuple[int, ...]]],
    whole: tuple[int, ...],
    data_axes: frozenset[str],
    like: Dims,
) -> Dims:
    """The only layout in which ``shards`` make ``whole``; LayoutError where none or several do.

    The order of ranks is kept. Sums that are pending, zigzag and neighbours that share a part are
    never guessed, because shapes do not show them. ``like`` lends the names of its dims.
    """
    found = [
        placement.dims
        for placement in fits(shards, whole, data_axes=data_axes, like=like)
        if not any(m.repeat > 1 for dim in placement.dims for m in dim.modifiers)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise LayoutError(f"no split of dims in rank order makes {list(whole)}")
    texts = ", ".join(repr(str(dims)) for dims in found[:TOLD])
    more = f" and {len(found) - TOLD} more" if len(found) > TOLD else ""
    raise LayoutError(
        f"{len(found)} layouts fit, so none is taken: {texts}{more}",
        do="say which one with --graft-dims, or in a --graft-layouts file",
    )
