"""``tr.graft``: observe a value, and in a graft take the other run's in its place."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from twinrun.errors import UsageError
from twinrun.grafting import joining
from twinrun.grafting.replace import GRADIENTS, value_for
from twinrun.grafting.site import Site
from twinrun.recorder.aside import is_aside
from twinrun.recorder.recompute import in_backward
from twinrun.recorder.scope import current_tags

T = TypeVar("T")


def graft(
    name: str,
    value: T,
    dims: str | None = None,
    *,
    extras: Any = None,
    gradient: str = "leaf",
    **tags: Any,
) -> T:
    """Record ``value`` under ``name``, and return the value to go on with.

    That is ``value`` itself outside a graft, on the sending side, and where the point fails (which is
    told and counted); on the receiving side it is the other run's value in this one's layout: same
    shape, dtype and device, memory of its own.

    dims: how it lies over the ranks, ``"t h[tp]"`` (docs/dims.md). extras: what the other side's
    transform gets beside it: None, bool, int, float, str, bytes, lists and dicts of them, tensors.
    gradient: ``leaf`` (gradients end at the replaced value) or ``through`` (they go on into what
    ``value`` was computed from). tags: facts that filters may ask for. A value that is no tensor is
    sent as extras are, and needs a transform on the receiving side.

    Raises UsageError for another ``gradient``; with ``--strict`` what made the point fail.
    """
    if gradient not in GRADIENTS:
        raise UsageError(f"gradient {gradient!r} is unknown", expected=" or ".join(GRADIENTS))
    session = joining.current()
    recorder = joining.recorder()
    if (session is None and recorder is None) or joining.is_compiling() or is_aside():
        return value
    direction = ""
    new: Any = value
    if session is not None:
        merged = {**current_tags(), **tags}
        step = 0 if recorder is None else recorder.step
        site = Site(
            name, step, dims=dims or "", tags=tuple(merged.items()), recompute=in_backward()
        )
        replaced, received = session.pass_through(site, value, extras=extras)
        if replaced:
            direction = session.direction(site) or ""
            tensor = isinstance(value, torch.Tensor)
            new = value_for(value, received, gradient) if tensor else received  # type: ignore[arg-type]
    if recorder is not None and isinstance(new, torch.Tensor):
        told = {**tags, "grafted": direction} if direction else tags
        recorder.observe(name, new, dims=dims, tags=told)
    result: T = new
    return result
