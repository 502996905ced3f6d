"""One precision up: which type a module's shadow computes in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from twinrun.diagnosis.refusal import Refusal

_HALF = frozenset({torch.bfloat16, torch.float16, torch.complex32})
_SINGLE = frozenset({torch.float32, torch.complex64})
_DOUBLE = frozenset({torch.float64, torch.complex128})


@dataclass(frozen=True, slots=True)
class Precision:
    """``high`` is float32 or float64, ``low`` the program's type that it stands above."""

    high: torch.dtype
    low: torch.dtype

    @property
    def name(self) -> str:
        """As tags and texts say it: ``float64``."""
        return str(self.high).removeprefix("torch.")

    def lift(self, dtype: torch.dtype) -> torch.dtype:
        """What stands for ``dtype`` in the shadow: itself where it is no narrower float or complex."""
        if dtype in _HALF or (self.high is torch.float64 and dtype in _SINGLE):
            return self.high.to_complex() if dtype.is_complex else self.high
        return dtype

    def lifts(self, value: object) -> bool:
        """Whether ``value`` is a tensor of a type that is lifted."""
        return isinstance(value, torch.Tensor) and self.lift(value.dtype) is not value.dtype

    def up(self, tensor: torch.Tensor) -> torch.Tensor:
        """A lifted copy; the same tensor where nothing is lifted."""
        dtype = self.lift(tensor.dtype)
        return tensor if dtype is tensor.dtype else tensor.to(dtype)

    def down(self, tensor: torch.Tensor) -> torch.Tensor:
        """Back in the program's own type, for what must be drawn as the program draws it."""
        return tensor.to(self.low) if tensor.dtype is self.high else tensor


def one_up(dtypes: Iterable[torch.dtype]) -> Precision:
    """The precision above a module's inputs, outputs, parameters and buffers, the inputs first.

    float32 where all of them are 16 bits wide, else float64. Refusal where none is narrower than
    float64, and for quantized types: wider arithmetic would not be the same computation.
    """
    floats = [one for one in dtypes if one.is_floating_point or one.is_complex]
    for one in floats:
        if one not in _HALF | _SINGLE | _DOUBLE:
            raise Refusal(f"quantized: it holds {str(one).removeprefix('torch.')}")
    low = [one for one in floats if one not in _DOUBLE]
    if not floats:
        raise Refusal("no floating tensors")
    if not low:
        raise Refusal("float64 already: no wider type")
    real = [one.to_real() for one in low]
    high = torch.float32 if all(one in _HALF for one in floats) else torch.float64
    return Precision(high, real[0])
