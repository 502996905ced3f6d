"""Which calls can be run a second time at all: said before anything is copied."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from twinrun.diagnosis.refusal import Refusal
from twinrun.recorder.device import capturing
from twinrun.recorder.flatten import arguments
from twinrun.recorder.payload import refusal

_SHARDED = ("FSDP", "FullyShardedDataParallel")
_INTEGERS = frozenset({torch.int8, torch.uint8, torch.int16, torch.int32})


def check_module(module: nn.Module) -> None:
    """Refusal for modules whose second run would disturb the first, or compute something else."""
    for held in module.modules():
        kind = type(held).__name__
        if kind.startswith(_SHARDED):
            raise Refusal("FSDP gathers and frees its parameters around each call")
        if kind == "OptimizedModule" or held._compiled_call_impl is not None:
            raise Refusal("torch.compile makes its code")
        if kind in ("DistributedDataParallel", "DataParallel"):
            raise Refusal(f"{kind} shares buffers with other ranks at each call")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        _check_weight(name, tensor)


def _check_weight(name: str, tensor: torch.Tensor) -> None:
    small = tensor.dtype in _INTEGERS and (isinstance(tensor, nn.Parameter) or tensor.dim() > 1)
    if tensor.is_quantized or small:
        raise Refusal(f"integer weights: {name} is {str(tensor.dtype).removeprefix('torch.')}")


def check_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refusal for tensors without values of their own, and while a CUDA graph is captured."""
    if capturing():
        raise Refusal("a CUDA graph is being captured", lasting=False)
    for port, tensor in arguments((), args, kwargs):
        why = "" if _is_wrapper(tensor) else refusal(tensor)
        if why:
            raise Refusal(f"{port} is {why}", lasting=False)


def _is_wrapper(tensor: torch.Tensor) -> bool:
    """Tensors of other classes that compute like plain ones."""
    distributed = sys.modules.get("torch.distributed.tensor")
    collectives = sys.modules.get("torch.distributed._functional_collectives")
    return (distributed is not None and isinstance(tensor, distributed.DTensor)) or (
        collectives is not None and isinstance(tensor, collectives.AsyncCollectiveTensor)
    )
