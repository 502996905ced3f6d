"""``--operators``: every operator that a module's own code executes, in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from twinrun.diagnosis.chosen import Chosen
from twinrun.diagnosis.listing import Listing, children_between
from twinrun.diagnosis.operator_facts import facts_of, higher_order_facts
from twinrun.diagnosis.operator_file import OperatorFile
from twinrun.diagnosis.origins import Origins
from twinrun.diagnosis.refusal import Refusal, Refused
from twinrun.recorder import boundary
from twinrun.recorder.aside import is_aside
from twinrun.recorder.core import Recorder
from twinrun.recorder.device import capturing
from twinrun.recorder.scene import OpenCall, Scene

Original = Callable[..., Any]
is_compiling = torch.compiler.is_compiling


class Operators:
    """Records ``<module>:op.<name>.<k>`` for each operator that gives values, and the whole sequence.

    An operator belongs to the innermost module that is being called: children answer for themselves.
    The sequence goes to ``operators.jsonl`` (docs/format.md). Each operator runs as it would have run.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._chosen = Chosen(recorder.options.operators)
        self._refused = Refused(recorder, "operators")
        self._file = OperatorFile(recorder)
        self._open = _Open()

    def intercept(self, call: OpenCall, phase: str, tree: Any) -> Any:
        """What a child gives back is where its caller's operators take it from."""
        watches = self._open.watches
        if phase == "output" and watches and watches[-1].calls(call):
            try:
                watches[-1].returned(call.entry.module, tree)
            except Exception as error:  # noqa: BLE001 - the program must run whatever befalls its observer
                self._refused.add(call.entry.module, f"its output was not followed: {error}", False)
        return tree

    def surround(self, call: OpenCall, original: Original) -> Original:
        """What is called in place of a chosen module; anything else stays what it is."""
        entry = call.entry
        if entry.module not in self._chosen or entry.module in self._refused:
            return original
        if call.recompute or is_aside() or not self._wants(call):
            return original

        def listed(held: nn.Module, *args: Any, **kwargs: Any) -> Any:
            watch = self._begin(call, held, args, kwargs)
            if watch is None:
                return original(held, *args, **kwargs)
            watches = self._open.watches
            watches.append(watch)
            try:
                with watch.mode:
                    return original(held, *args, **kwargs)
            finally:
                del watches[watches.index(watch) :]
                self._end(watch)

        return listed

    def _wants(self, call: OpenCall) -> bool:
        entry = call.entry
        return self._recorder.wants(
            f"{entry.module}:op",
            role="operator",
            module=entry.module,
            module_class=entry.class_name,
        )

    def _begin(
        self, call: OpenCall, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Watch | None:
        try:
            _check(module)
            observer = boundary.current()
            if observer is None:
                return None
            watch = _Watch(self._recorder, call, observer.scene, self._refused)
            watch.listing.origins.take_call(module, call.entry.arguments, args, kwargs)
            return watch
        except Refusal as refusal:
            self._refused.add(call.entry.module, str(refusal), refusal.lasting)
        except Exception as error:  # noqa: BLE001 - as above
            self._refused.add(call.entry.module, f"{type(error).__name__}: {error}")
        return None

    def _end(self, watch: _Watch) -> None:
        try:
            self._file.write(watch.call, watch.listing)
        except Exception as error:  # noqa: BLE001 - as above
            self._recorder.problem(f"operators were not written: {error}")
        self._recorder.seconds += watch.seconds


def _check(module: nn.Module) -> None:
    if capturing():
        raise Refusal("a CUDA graph is being captured", lasting=False)
    for held in module.modules():
        if type(held).__name__ == "OptimizedModule" or held._compiled_call_impl is not None:
            raise Refusal("torch.compile makes its code: it executes kernels, not operators")


class _Open(threading.local):
    def __init__(self) -> None:
        self.watches: list[_Watch] = []


class _Watch:
    """One call that is being listed."""

    def __init__(self, recorder: Recorder, call: OpenCall, scene: Scene, refused: Refused) -> None:
        self.call = call
        self.seconds = 0.0
        self.listing = Listing(Origins(), self._keep)
        self.mode = _Mode(self)
        self._recorder = recorder
        self._refused = refused
        self._scene = scene
        self._depth = len(scene.stack)

    @property
    def is_inside(self) -> bool:
        """Whether the module's own code runs now, and not that of something it called."""
        return len(self._scene.stack) == self._depth and not is_aside()

    def calls(self, call: OpenCall) -> bool:
        """Whether ``call``, which is about to return, was made by the module's own code."""
        return len(self._scene.stack) == self._depth + 1 and call is not self.call

    def returned(self, path: str, output: Any) -> None:
        """A child gave ``output``."""
        self.listing.origins.take_child(children_between(path, self.call.entry.module), output)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Execute one operator of the module's own, and list it."""
        if isinstance(func, torch._ops.OpOverload):
            facts = facts_of(func)
        else:
            facts = higher_order_facts(func, len(args))
        if facts.is_composite:
            with self.mode:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        row = self._guarded(lambda: self.listing.described(facts, args, kwargs))
        out = func(*args, **kwargs)
        if row is not None:
            result = out if out is not None else _written(facts.bound(args, kwargs), facts.writes)
            self._guarded(lambda: self.listing.add(facts, row, result))
        return out

    def _keep(self, name: str, tensor: torch.Tensor, index: int) -> None:
        entry = self.call.entry
        self._recorder.observe(
            f"{entry.module}:op.{name}",
            tensor,
            role="operator",
            **self.call.facts,
            tags={"operator": index},
            begun=self.call.begun,
        )

    def _guarded(self, act: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - the program must run whatever befalls its observer
            self._refused.add(self.call.entry.module, f"{type(error).__name__}: {error}")
            return None
        finally:
            self.seconds += time.perf_counter() - started


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    # Without this, torch raises into the program at the first one (flex attention, cond).
    supports_higher_order_operators = True

    @classmethod
    def is_infra_mode(cls) -> bool:
        """It is none of the program's: torch.compile would leave its functions uncompiled under one."""
        return True

    def __init__(self, watch: _Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watch = watch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self._watch.is_inside and not is_compiling():
            return self._watch.run(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _written(bound: Any, writes: tuple[str, ...]) -> Any:
    held: Mapping[str, Any] = dict(bound)
    return [held[name] for name in writes if name in held]
