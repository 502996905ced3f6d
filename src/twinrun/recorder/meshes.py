"""Rank coordinates: from the DeviceMesh that a model's parameters or attributes carry."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

Mesh = dict[str, tuple[int, int]]
_ATTRIBUTES = ("device_mesh", "_device_mesh")


def mesh_of(module: nn.Module) -> Mesh | None:
    """This rank's coordinates on the meshes that the model names; None where it names none.

    Axes without a name are called ``axis0``, ``axis1``, ...; the one axis of a model that carries
    a tensor-parallel plan (transformers' ``tp_plan``) is ``tp``.
    """
    kind = _device_mesh_class()
    if kind is None:
        return None
    found: Mesh = {}
    for held in _meshes(module, kind):
        for axis, place in coordinates(held, has_plan=_has_plan(module)).items():
            found.setdefault(axis, place)
    return found or None


def coordinates(mesh: Any, has_plan: bool = False) -> Mesh:
    """This rank's place on each axis of a DeviceMesh; empty where the rank is not on it."""
    places = mesh.get_coordinate()
    if places is None:
        return {}
    names = mesh.mesh_dim_names
    if names is None:
        tensor_parallel = has_plan and mesh.ndim == 1
        names = ("tp",) if tensor_parallel else tuple(f"axis{i}" for i in range(mesh.ndim))
    return {
        name: (int(place), int(mesh.size(axis)))
        for axis, (name, place) in enumerate(zip(names, places, strict=True))
    }


def _meshes(module: nn.Module, kind: type) -> list[Any]:
    """The model's own mesh first, then those of its sharded parameters."""
    found: list[Any] = []
    for name in _ATTRIBUTES:
        held = getattr(module, name, None)
        if isinstance(held, kind):
            found.append(held)
    for parameter in module.parameters():
        held = getattr(parameter, "device_mesh", None)
        if isinstance(held, kind) and held not in found:
            found.append(held)
    return found


def _has_plan(module: nn.Module) -> bool:
    return bool(getattr(module, "_tp_plan", None) or getattr(module, "tp_plan", None))


def _device_mesh_class() -> type | None:
    """The class, where the program uses it; importing it here would cost others for nothing."""
    loaded = sys.modules.get("torch.distributed.device_mesh")
    kind = getattr(loaded, "DeviceMesh", None)
    return kind if isinstance(kind, type) else None
