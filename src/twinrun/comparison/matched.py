"""Two annotated tensors whose dims have the same names, seen in one order and shape."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from twinrun.comparison.assemble import as_integers
from twinrun.comparison.logical import Logical
from twinrun.layout import Box, Dims, View, match


def matched(
    one: Logical, one_dims: Dims | None, two: Logical, two_dims: Dims | None
) -> tuple[Logical, Logical]:
    """Both in ``one``'s order of dims, without squeezed ones and with fused ones cut alike.

    As they are where a side has no dims, where the names already stand in one order, or where names
    do not tell how the two correspond. Nothing is read here; shapes may still differ.
    """
    if one_dims is None or two_dims is None or one_dims.names == two_dims.names:
        return one, two
    views = match(one_dims, one.shape, two_dims, two.shape)
    if views is None:
        return one, two
    return _seen(one, views[0]), _seen(two, views[1])


def _seen(tensor: Logical, view: View) -> Logical:
    if view.identity:
        return tensor
    return replace(tensor, shape=view.shape, read=partial(_read, tensor, view))


def _read(tensor: Logical, view: View, box: Box) -> torch.Tensor:
    hull = view.hull(box)
    values = tensor.read(hull)
    cut = as_integers(values).reshape(view.split_of(hull)).permute(view.order)
    return cut[view.within(box).slices].view(values.dtype)
