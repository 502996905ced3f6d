"""Putting a received value where the program's own was: as a new value, or into the tensor itself."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.graph import increment_version

from twinrun.errors import UsageError
from twinrun.grafting.memory import fill

GRADIENTS = ("leaf", "through")


class _Through(torch.autograd.Function):
    """Forward: the received value, bit for bit. Backward: the gradient goes to the original.

    ``received`` comes in a list: as an input given back it would be a view, which the program could
    not modify in place.
    """

    @staticmethod
    def forward(ctx: Any, original: torch.Tensor, received: list[torch.Tensor]) -> torch.Tensor:
        return received[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def value_for(original: torch.Tensor, received: torch.Tensor, gradient: str) -> torch.Tensor:
    """``received`` in the place of ``original``.

    gradient: ``leaf`` (it is a leaf that requires grad where the original did, and gradients end
    there) or ``through`` (they go on into what the original was computed from).
    """
    if not original.requires_grad:
        return received
    if gradient == "through" and torch.is_grad_enabled():
        made: torch.Tensor = _Through.apply(original, [received])  # type: ignore[no-untyped-call]
        return made
    return (
        received.requires_grad_()
        if received.dtype.is_floating_point or received.is_complex()
        else received
    )


def check_overwritable(tensor: torch.Tensor, name: str) -> None:
    """UsageError where a tensor cannot be overwritten in place without harm."""
    if tensor.requires_grad:
        why = "it requires grad"
    elif any(
        stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    ):
        why = "it is an expanded view, several of its elements are one"
    else:
        return
    raise UsageError(
        f"{name!r} cannot be overwritten where it was dumped: {why}",
        do=f"use x = tr.graft({name!r}, x) there, and go on with what it returns",
    )


def overwrite(tensor: torch.Tensor, received: torch.Tensor) -> None:
    """Put all of ``received`` into ``tensor`` at once; autograd learns that it has changed."""
    if tensor.device.type == "cpu":
        fill(tensor.detach(), received)
        increment_version(tensor)
    else:
        with torch.no_grad():
            tensor.copy_(received)
