"""One number for a tensor or a model, the same whatever its sharding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import torch

from twinrun.errors import UsageError

_CHUNK = 1 << 20
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
_INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def fingerprint(held: torch.Tensor | torch.nn.Module) -> int:
    """A number from 0 to 2**64 - 1 that changes with any bit of any value, and with nothing else.

    It is the sum, modulo 2**64, over all elements of ``mix(bits ^ mix(index * golden + key))``: `index`
    is the element's place in the logical tensor, `key` a hash of its name, dtype and logical shape,
    `mix` the finaliser of splitmix64. A sum has no order, so each rank adds its own part. A
    ``DTensor``'s shards count at their own places and its replicas once; then its mesh adds up, so
    every rank of the mesh must call this. Plain tensors are whole on every rank. A module is its
    parameters and persistent buffers; names of wrappers (DDP, FSDP, compile) are left out. Raises
    UsageError for a DTensor whose sum is still pending. Needs some 20 MiB beside the tensors.
    """
    whole = 0
    parts: dict[Any, int] = {}
    for name, tensor in _named(held):
        shard = _shard(tensor)
        if shard is None:
            whole += _sum(tensor, _key(name, tensor.dtype, tensor.shape), None)
            continue
        local, mesh, indices, counts = shard
        own = _sum(local, _key(name, tensor.dtype, tensor.shape), _places(indices, tensor.shape))
        parts[mesh] = parts.get(mesh, 0) + (own if counts else 0)
    return (whole + sum(_over(mesh, own) for mesh, own in parts.items())) % (1 << 64)


def _named(held: torch.Tensor | torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(held, torch.Tensor):
        yield "", held
        return
    for name, parameter in held.named_parameters():
        yield _plain(name), parameter
    for prefix, module in held.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield _plain(f"{prefix}.{name}" if prefix else name), buffer


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _key(name: str, dtype: torch.dtype, shape: Sequence[int]) -> int:
    text = f"{name} {dtype} {tuple(shape)}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)


def _sum(
    tensor: torch.Tensor, key: int, places: Callable[[torch.Tensor], torch.Tensor] | None
) -> int:
    """The sum over one rank's elements; `places` turns local offsets into logical ones."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    flat = tensor.contiguous().reshape(-1)
    parts = 1
    if flat.element_size() == 16:
        flat, parts = torch.view_as_real(flat).reshape(-1), 2
    bits = flat.view(_INTEGER_OF_SIZE[flat.element_size()])
    total = 0
    for start in range(0, bits.numel(), _CHUNK):
        chunk = bits[start : start + _CHUNK].long()
        index = torch.arange(start, start + chunk.numel(), device=chunk.device)
        if places is not None:
            index = places(index // parts) * parts + index % parts
        total += int(_mixed(chunk ^ _mixed(index * _GOLDEN + key)).sum())
    return total


def _mixed(value: torch.Tensor) -> torch.Tensor:
    """The finaliser of splitmix64, on int64 that wraps."""
    value = (value ^ _shifted(value, 30)) * _MIX[0]
    value = (value ^ _shifted(value, 27)) * _MIX[1]
    return value ^ _shifted(value, 31)


def _shifted(value: torch.Tensor, by: int) -> torch.Tensor:
    """A logical shift right."""
    return (value >> by) & ((1 << (64 - by)) - 1)


def _shard(tensor: torch.Tensor) -> tuple[torch.Tensor, Any, list[torch.Tensor], bool] | None:
    """(local tensor, mesh, logical indices of each dim, whether this rank's copy counts)."""
    local = getattr(tensor, "_local_tensor", None)
    if not isinstance(local, torch.Tensor):
        return None
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    at = mesh.get_coordinate()
    if at is None:
        return local, mesh, [torch.zeros(0, dtype=torch.long)] * tensor.dim(), False
    indices = [torch.arange(size) for size in tensor.shape]
    counts = True
    for axis, placement in _outermost_first(placements):
        if placement.is_partial():
            raise UsageError(
                "a DTensor with a pending sum has no fingerprint",
                seen=str(placements),
                do="redistribute it to Replicate() or Shard() first",
            )
        if placement.is_replicate():
            counts = counts and at[axis] == 0
            continue
        held = indices[placement.dim]
        length = math.ceil(held.numel() / mesh.size(axis))
        indices[placement.dim] = held[at[axis] * length : (at[axis] + 1) * length]
    if tuple(index.numel() for index in indices) != tuple(local.shape):
        raise UsageError(
            f"this DTensor's local shape {list(local.shape)} does not follow from its placements",
            seen=f"{placements} of {list(tensor.shape)}",
            expected=str([index.numel() for index in indices]),
        )
    return local, mesh, indices, counts


def _outermost_first(placements: Sequence[Any]) -> list[tuple[int, Any]]:
    """Placements with their mesh axes; a strided shard was cut after the later axes of its dim."""
    held = list(enumerate(placements))
    return sorted(held, key=lambda one: (type(one[1]).__name__ == "_StridedShard", one[0]))


def _places(
    indices: Sequence[torch.Tensor], shape: Sequence[int]
) -> Callable[[torch.Tensor], torch.Tensor]:
    strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]

    def place(offsets: torch.Tensor) -> torch.Tensor:
        found = torch.zeros_like(offsets)
        for held, stride in zip(reversed(indices), reversed(strides), strict=True):
            along = held.to(offsets.device)[offsets % held.numel()]
            found += along * stride
            offsets = offsets // held.numel()
        return found

    return place


def _over(mesh: Any, own: int) -> int:
    """The sum over all ranks of a mesh, modulo 2**64."""
    total = torch.tensor([own % (1 << 64)], dtype=torch.uint64).view(torch.int64)
    total = total.to(mesh.device_type)
    for axis in range(mesh.ndim):
        torch.distributed.all_reduce(total, group=mesh.get_group(axis))
    return int(total)
