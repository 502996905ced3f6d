"""Code that runs one precision up: every floating tensor and type that it meets is lifted.

A function mode lifts where types are mixed, before C++ checks that they agree; a dispatch mode lifts
what is left, types among the arguments (``.float()``, ``softmax(dtype=...)``, ``.to(x.dtype)``) too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from twinrun.diagnosis.drawing import draw, draws_nothing
from twinrun.diagnosis.operator_facts import OperatorFacts, facts_of, mapped, parts
from twinrun.diagnosis.precision import Precision
from twinrun.diagnosis.refusal import Refusal

_SPACES = frozenset(
    {"aten", "prims", "prim", "c10d", "_c10d_functional", "c10d_functional", "_dtensor",
     "_c10d_functional_autograd"}
)  # fmt: skip
# A kernel that is given an address computes in whatever precision it was written for.
_RAW = frozenset({torch.Tensor.data_ptr, torch.Tensor.__dlpack__})


@contextmanager
def lifted(precision: Precision, own: Iterable[torch.Tensor]) -> Iterator[None]:
    """A block that computes in ``precision``; Refusal out of it where that is not to be had.

    own: tensors that it may write to, beside those that it makes.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if "torch._dynamo" in sys.modules:
            # What the program compiled runs as it was written; the compiler learns nothing of it.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_Operators(precision, own))
        stack.enter_context(_Functions(precision))
        yield


class _Functions(TorchFunctionMode):
    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self._precision = precision

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RAW:
            raise Refusal("a kernel of its own reads memory directly")
        if func is torch.nn.functional.scaled_dot_product_attention:
            _no_fused_dropout(args, kwargs)
        if _is_mixed((*args, *kwargs.values()), self._precision) and not _writes(func, kwargs):
            args = mapped(args, self._up)
            kwargs = {name: mapped(value, self._up) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _up(self, value: Any) -> Any:
        return self._precision.up(value) if isinstance(value, torch.Tensor) else value


def _writes(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether it may change an argument: then the dispatch mode decides, which knows which one."""
    name = getattr(func, "__name__", "")
    return "out" in kwargs or name == "__setitem__" or (name.endswith("_") and name[:1] != "_")


def _is_mixed(values: Iterable[Any], precision: Precision) -> bool:
    found = {one.dtype for value in values for one in parts(value) if _floats(one)}
    return any(precision.lift(one) is not one for one in found) and len(found) > 1


def _floats(tensor: torch.Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def _no_fused_dropout(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    chance = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
    if chance and args[0].is_cuda:
        raise Refusal("attention with dropout draws inside a fused kernel")


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True  # they are refused with their name

    def __init__(self, precision: Precision, own: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._precision = precision
        self._memory = _Memory()
        for tensor in own:
            self._memory.add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            raise Refusal(f"it calls the higher-order operator {func}")
        facts = facts_of(func)
        if facts.space not in _SPACES:
            raise Refusal(f"it calls the custom operator {facts.space}::{facts.name}")
        if facts.is_composite:
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        if facts.name == "detach_":
            return args[0]  # there is no graph here, and it changes no value
        self._check(facts, args, kwargs)
        out = self._run(func, facts, args, kwargs)
        for tensor in parts(out):
            if not facts.is_view:
                self._memory.add(tensor)
        return out

    def _check(self, facts: OperatorFacts, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if facts.is_view and facts.overload == "dtype":
            raise Refusal("it looks at the bits of a tensor (view with a dtype)")
        bound = dict(facts.bound(args, kwargs))
        for value in bound.values():
            if isinstance(value, torch.dtype) and value.itemsize == 1 and value.is_floating_point:
                raise Refusal(f"quantized: it converts to {str(value).removeprefix('torch.')}")
        written = [bound.get(name) for name in facts.writes]
        if facts.space == "c10d":
            written = [value for value in bound.values() if self._holds_low(value)]
        for value in written:
            for tensor in parts(value):
                if self._precision.lifts(tensor) or tensor not in self._memory:
                    raise Refusal(
                        f"{facts.name} writes to a tensor that is neither its input nor its own"
                    )

    def _holds_low(self, value: Any) -> bool:
        return any(self._precision.lifts(one) for one in parts(value))

    def _run(
        self, func: Any, facts: OperatorFacts, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        precision = self._precision
        if facts.draws and not draws_nothing(facts, args, kwargs):
            return draw(func, facts, args, kwargs, precision)
        if facts.is_view or (facts.moves and not self._holds_high(args)):
            out = func(*args, **kwargs)
            return out if facts.is_view else mapped(out, self._up)
        if facts.name == "_grouped_mm":
            return _grouped(*(mapped(one, self._up) for one in args), **kwargs)
        high = tuple(mapped(one, self._up) for one in args)
        named = {name: mapped(one, self._up) for name, one in kwargs.items()}
        out = func(*high, **named)
        if facts.writes or not self._holds_low(out):
            return out
        return self._again(func, high, named, out)

    def _again(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        """Floats made of whole numbers have the default type: once more, from wide floats.

        Constants that the program makes in its default type keep the value that they have there.
        """
        whole = [one for value in args for one in parts(value)]
        if whole and not any(_floats(one) for one in whole):
            wide = tuple(mapped(value, self._as_float) for value in args)
            try:
                return mapped(func(*wide, **kwargs), self._up)
            except (RuntimeError, TypeError, NotImplementedError):
                pass  # it takes whole numbers only
        return mapped(out, self._up)

    def _holds_high(self, values: Iterable[Any]) -> bool:
        found = [one for value in values for one in parts(value) if _floats(one)]
        return any(not self._precision.lifts(one) for one in found) and len(found) > 1

    def _up(self, value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return self._precision.lift(value)
        return self._precision.up(value)

    def _as_float(self, value: Any) -> Any:
        return value.to(self._precision.high) if isinstance(value, torch.Tensor) else value


class _Memory:
    """The storages that a block made or was given; what it writes to anything else is the program's."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def add(self, tensor: torch.Tensor) -> None:
        self._known.add(_storage(tensor))

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return _storage(tensor) in self._known


def _storage(tensor: torch.Tensor) -> int:
    local = getattr(tensor, "_local_tensor", getattr(tensor, "elem", tensor))
    return int(local.untyped_storage()._cdata)


def _grouped(
    a: torch.Tensor,
    b: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``aten::_grouped_mm``, whose kernels know 16-bit types only, one group at a time."""
    if bias is not None:
        raise Refusal("grouped products with a bias")
    if offs is None:
        return torch.bmm(a, b)
    ends = offs.tolist()
    starts = [0, *ends[:-1]]
    if a.dim() == 2 and b.dim() == 2:
        made = [a[:, s:e] @ b[s:e] for s, e in zip(starts, ends, strict=True)]
        return torch.stack(made)
    rows = a.shape[-2] if a.dim() == 2 else b.shape[-1]
    if a.dim() == 2:
        out = a.new_zeros(rows, b.shape[-1])
        for group, (s, e) in enumerate(zip(starts, ends, strict=True)):
            out[s:e] = a[s:e] @ b[group]
        return out
    out = a.new_zeros(a.shape[-2], rows)
    for group, (s, e) in enumerate(zip(starts, ends, strict=True)):
        out[:, s:e] = a[group] @ b[:, s:e]
    return out
