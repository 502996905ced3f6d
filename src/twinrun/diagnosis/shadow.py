"""The shadow: a module is run once more on the same inputs, one precision up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from twinrun.diagnosis.chosen import Chosen
from twinrun.diagnosis.copies import Copier
from twinrun.diagnosis.held_state import Attributes, RandomState
from twinrun.diagnosis.lifting import lifted
from twinrun.diagnosis.precision import Precision, one_up
from twinrun.diagnosis.refusal import Refusal, Refused
from twinrun.diagnosis.suitable import check_call, check_module
from twinrun.recorder import boundary
from twinrun.recorder.aside import aside, is_aside
from twinrun.recorder.core import Recorder
from twinrun.recorder.flatten import arguments, flatten
from twinrun.recorder.intercept import Interceptor
from twinrun.recorder.scene import OpenCall

Original = Callable[..., Any]


class Shadows:
    """``--shadow``: records ``<module>:shadow.<port>`` for each floating output of the chosen modules.

    The module's own call is not touched: what it could change is copied before it, and the second
    run has copies of its own, afterwards. Modules that have no shadow are told under the report
    ``shadows``.
    """

    intercept: Interceptor | None = None

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._chosen = Chosen(recorder.options.shadow)
        self._refused = Refused(recorder, "shadows")

    def surround(self, call: OpenCall, original: Original) -> Original:
        """What is called in place of a chosen module; anything else stays what it is."""
        module = call.entry.module
        if module not in self._chosen or module in self._refused or call.recompute or is_aside():
            return original
        if not self._recorder.wants(
            f"{module}:shadow.output",
            role="shadow",
            module=module,
            module_class=call.entry.class_name,
        ):
            return original

        def shadowed(held: nn.Module, *args: Any, **kwargs: Any) -> Any:
            before = self._guarded(call, lambda: _Before.of(held, args, kwargs))
            output = original(held, *args, **kwargs)
            if before is not None:
                self._guarded(call, lambda: self._record(call, original, before, output))
            return output

        return shadowed

    def _record(self, call: OpenCall, original: Original, before: _Before, output: Any) -> None:
        entry, observer = call.entry, boundary.current()
        if observer is None:
            return
        wanted = dict(_floating(output))
        if not wanted:
            raise Refusal("it gives no floating tensor", lasting=False)
        precision = one_up(before.dtypes(entry.arguments, wanted.values()))
        with _disable_current_modes(), aside(observer.scene):
            made = before.run(original, precision)
        for port, tensor in flatten(made, "output"):
            if port not in wanted:
                continue
            if tensor.shape != wanted[port].shape:
                raise Refusal(f"its shadow gives {port} in another shape", lasting=False)
            self._recorder.observe(
                f"{entry.module}:shadow.{port}",
                tensor,
                role="shadow",
                **call.facts,
                tags={"precision": precision.name},
                reduction=entry.reduction,
                begun=call.begun,
            )

    def _guarded(self, call: OpenCall, act: Callable[[], Any]) -> Any:
        """What ``act`` gives; None and a reason where it fails. Its time counts as observing."""
        started = time.perf_counter()
        try:
            return act()
        except Refusal as refusal:
            self._refused.add(call.entry.module, str(refusal), refusal.lasting)
        except Exception as error:  # noqa: BLE001 - the program must run whatever befalls a shadow
            lines = str(error).strip().splitlines()
            first = lines[0] if lines else ""
            self._refused.add(call.entry.module, f"{type(error).__name__}: {first}")
        finally:
            self._recorder.seconds += time.perf_counter() - started
        return None


@dataclass(slots=True)
class _Before:
    """What a module was given and held when it was called, in copies."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attributes: Attributes
    random: RandomState

    @classmethod
    def of(cls, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Before:
        """Taken now, unseen by autograd and by modes that the program has open."""
        check_module(module)
        check_call(args, kwargs)
        with torch.no_grad(), _disable_current_modes():
            copier = Copier(_copy)
            given = tuple(copier.copy(one, f"its argument {at}") for at, one in enumerate(args))
            named = {name: copier.copy(one, f"its argument {name}") for name, one in kwargs.items()}
            kept = Attributes.of(module, copier)
            return cls(module, given, named, kept, RandomState([module, args, kwargs]))

    def dtypes(self, names: tuple[str, ...], outputs: Any) -> Iterator[torch.dtype]:
        """The types of its inputs, parameters, buffers and outputs, in this order."""
        for _, tensor in arguments(names, self.args, self.kwargs):
            yield tensor.dtype
        for held in (*self.module.parameters(), *self.module.buffers(), *outputs):
            yield held.dtype

    def run(self, original: Original, precision: Precision) -> Any:
        """What the module gives one precision up; everything it reads is put back afterwards."""
        own: list[torch.Tensor] = []

        def lift(tensor: torch.Tensor) -> torch.Tensor:
            own.append(precision.up(tensor))
            return own[-1]

        after = RandomState([self.module, self.args, self.kwargs])
        with torch.no_grad():
            copier = Copier(lift)
            args = tuple(copier.copy(one, "its arguments") for one in self.args)
            kwargs = {name: copier.copy(one, "its arguments") for name, one in self.kwargs.items()}
            attributes = self.attributes.through(copier)
        with ExitStack() as stack:
            stack.callback(after.restore)
            stack.enter_context(attributes.in_place())
            self.random.restore()
            stack.enter_context(lifted(precision, own))
            return original(self.module, *args, **kwargs)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _floating(output: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for port, tensor in flatten(output, "output"):
        if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
            yield port, tensor
