"""Where the tensors that one call of a module computes with come from, in words."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.weak import TensorWeakRef

from twinrun.recorder.flatten import arguments, flatten

OUTSIDE = "outside"
"""What is none of the module's inputs, parameters, buffers, children's outputs or operators' results."""

Place = tuple[int, int, tuple[int, ...], tuple[int, ...]]


class Origins:
    """Labels: ``input.x``, ``child:q_proj:output``, ``parameter:weight``, ``buffer:inv_freq``, ``op:3.1``.

    By the tensor itself where it is met again, else by the view of memory that it is, else by its
    memory: autograd makes other objects of what an operator returned. Keeps nothing alive.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[Any, str]] = {}
        self._by_place: dict[Place, str] = {}
        self._by_storage: dict[int, str] = {}

    def take_call(
        self, module: nn.Module, names: tuple[str, ...], args: tuple[Any, ...], kwargs: Any
    ) -> None:
        """The beginning: what the module holds and what it was given."""
        for name, parameter in module.named_parameters():
            self.add(parameter, f"parameter:{name}")
        for name, buffer in module.named_buffers():
            self.add(buffer, f"buffer:{name}")
        for port, tensor in arguments(names, args, kwargs):
            self.add(tensor, port)

    def take_child(self, path: str, output: Any) -> None:
        """A child returned; ``path`` is relative to the module."""
        for port, tensor in flatten(output, "output"):
            self.add(tensor, f"child:{path}:{port}")

    def add(self, tensor: torch.Tensor, label: str, fresh: bool = True) -> None:
        """Label a tensor. ``fresh``: its memory holds what the label says, not only this view of it."""
        self._by_id[id(tensor)] = (TensorWeakRef(tensor), label)
        place = place_of(tensor)
        if place is not None:
            self._by_place[place] = label
            if fresh or place[0] not in self._by_storage:
                self._by_storage[place[0]] = label

    def of(self, tensor: torch.Tensor) -> str:
        """The label of a tensor, or ``OUTSIDE``."""
        known = self._by_id.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        place = place_of(tensor)
        if place is None:
            return OUTSIDE
        return self._by_place.get(place) or self._by_storage.get(place[0], OUTSIDE)


def place_of(tensor: torch.Tensor) -> Place | None:
    """Its memory and the view of it; None for tensors that have none of their own."""
    local = getattr(tensor, "_local_tensor", getattr(tensor, "elem", tensor))
    try:
        storage = int(local.untyped_storage()._cdata)
        return storage, int(local.storage_offset()), tuple(local.shape), tuple(local.stride())
    except (RuntimeError, NotImplementedError):
        return None
