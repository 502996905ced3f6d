"""What can be read of a tensor: its memory, its layout where it carries one, or why neither."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from twinrun.recorder.dtypes import NAMES
from twinrun.recorder.placements import dims_of, mesh_of


class Look(NamedTuple):
    """What was seen of a tensor without reading its values.

    ``refusal`` says why there are none to read; ``dims`` and ``mesh`` are a DTensor's own.
    """

    tensor: torch.Tensor
    dtype: torch.dtype
    shape: tuple[int, ...]
    device: str
    refusal: str
    dims: str | None = None
    mesh: Mapping[str, tuple[int, int]] | None = None


def address_of(tensor: torch.Tensor, *, anywhere: bool = False) -> int:
    """Where its elements lie in order in CPU memory, or ``anywhere``; 0 where a closer look is needed.

    This is the path of nearly every tensor, so it asks for no more than it must: a layout without
    plain memory has no ``data_ptr``, and a complex tensor may be conjugated.
    """
    kind = type(tensor)
    if (kind is not torch.Tensor and kind is not torch.nn.Parameter) or _function_mode():
        return 0
    try:
        if (anywhere or tensor.is_cpu) and not tensor.is_nested and tensor.is_contiguous():
            return tensor.data_ptr() if tensor.dtype in _REAL and not tensor.is_neg() else 0
    except RuntimeError:
        return 0
    return 0


_function_mode = torch._C._is_torch_function_mode_enabled
_set_grad_enabled = torch._C._set_grad_enabled
_REAL = frozenset(dtype for dtype in NAMES if not dtype.is_complex)


def look(tensor: torch.Tensor) -> Look:
    """Look at a tensor unseen by function modes, dispatch modes and autograd."""
    with unseen():
        return _closer(tensor)


def _closer(tensor: torch.Tensor) -> Look:
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and isinstance(tensor, distributed.DTensor):
        dims = dims_of(tensor.placements, tensor.device_mesh, tensor.shape)
        mesh = mesh_of(tensor.device_mesh)
        return _closer(tensor.to_local())._replace(dims=dims, mesh=mesh)
    collectives = sys.modules.get("torch.distributed._functional_collectives")
    if collectives is not None and isinstance(tensor, collectives.AsyncCollectiveTensor):
        return _closer(tensor.trigger_wait())
    why = refusal(tensor)
    shape = () if tensor.is_nested else tuple(tensor.shape)
    return Look(tensor, tensor.dtype, shape, str(tensor.device), why)


class unseen:
    """A block whose tensor operations no mode sees and autograd does not record.

    A class with nothing in between: it is entered for every tensor that is looked at.
    """

    __slots__ = ("_dispatch", "_function", "_grad")

    def __enter__(self) -> None:
        self._function = torch._C.DisableTorchFunction()
        self._dispatch = torch._C._DisableTorchDispatch()
        self._function.__enter__()
        self._dispatch.__enter__()  # type: ignore[no-untyped-call]
        self._grad = torch.is_grad_enabled()
        _set_grad_enabled(False)

    def __exit__(self, *error: Any) -> None:
        _set_grad_enabled(self._grad)
        self._dispatch.__exit__(*error)
        self._function.__exit__(*error)


def refusal(tensor: torch.Tensor) -> str:
    """Why this tensor has no plain memory to copy; empty where it has."""
    kind = type(tensor)
    if kind is not torch.Tensor and _dispatches(kind):
        return f"a {kind.__name__}, whose memory only its own class can read"
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return "inside a torch.func transform"
    if tensor.is_meta:
        return "a meta tensor has no values"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized or tensor.dtype not in NAMES:
        return f"a quantized tensor ({tensor.dtype})"
    if tensor.layout is not torch.strided:
        return f"layout {tensor.layout}"
    if torch._is_functional_tensor(tensor):
        return "a functional tensor inside a trace"
    return ""


def _dispatches(kind: type[torch.Tensor]) -> bool:
    return kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__


def as_integers(tensor: torch.Tensor) -> torch.Tensor:
    """Its values with conjugation and negation carried out, seen as integers of the same size.

    Some types have memory, but no copy of their own. 16-byte elements stay what they are.
    """
    plain = tensor.detach()
    if plain.is_conj():
        plain = plain.resolve_conj()
    if plain.is_neg():
        plain = plain.resolve_neg()
    bits = _BITS.get(plain.dtype.itemsize)
    return plain if bits is None else plain.view(bits)


def contiguous_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """Its bits in contiguous CPU memory."""
    return as_integers(tensor).to("cpu").contiguous()


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
