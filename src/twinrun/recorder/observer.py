"""What happens at a module's boundary: its tensors are named and handed to the recorder."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from twinrun.recorder import flatten
from twinrun.recorder.core import Recorder
from twinrun.recorder.finishing import finish_before
from twinrun.recorder.flow import Flow, is_traced
from twinrun.recorder.gradients import Gradients
from twinrun.recorder.intercept import beginnings, interceptors, surrounds
from twinrun.recorder.lineage import Lineage
from twinrun.recorder.parameters import record_parameters
from twinrun.recorder.recompute import in_backward
from twinrun.recorder.registry import Registry
from twinrun.recorder.roots import Entry, Root
from twinrun.recorder.scene import OpenCall, Scene, Sight
from twinrun.recorder.taps import Taps
from twinrun.recorder.unfired import unfired

Original = Callable[..., Any]

_BLIND = Sight()
"""Nothing is ever put into the sight of a call that has no taps."""


class Observer:
    """Everything that one capture knows of the modules of this process.

    ``everything``: roots are observed without having been watched (``twinrun run``, attach).
    ``on_forward`` is told of a root that is called through ``.forward()``, ``on_read`` of every root
    whose modules are about to be named. Nothing here raises into the program: what goes wrong is a problem of the capture.
    """

    def __init__(
        self,
        recorder: Recorder,
        everything: bool,
        on_forward: Callable[[nn.Module], None],
        on_read: Callable[[nn.Module], None],
    ) -> None:
        options = recorder.options
        self.recorder = recorder
        self.scene = Scene()
        self.flow = Flow()
        taps = Taps.parse(options.taps) if everything else None
        self.registry = Registry(recorder, taps, on_forward, on_read)
        self.gradients = Gradients(recorder, self.registry) if options.gradients else None
        if self.gradients is not None:
            finish_before(recorder, step=self.gradients.finish, close=self.gradients.close)
        self._filtered = bool(options.filter or options.steps)
        self._news = False
        self.lineage = recorder.tracer = Lineage(self.flow, self.scene)

    def call(
        self, module: nn.Module, original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call ``original(module, *args, **kwargs)`` and observe what goes in and comes out."""
        stack = self.scene.stack
        depth = len(stack)
        if depth:
            above = stack[-1]
            entry = above.root.entry(module)
            if entry is None:
                entry = self._guarded(self.registry.inside, module, above)
            elif entry is above or entry.module == above.module:
                # A wrapper around the module, or its own __call__ calling nn.Module's.
                return original(module, *args, **kwargs)
        else:
            entry = self._guarded(self._enter_root, module)
            if entry is not None and entry.root.told != entry.root.call:
                self._begun(entry.root)
        if entry is None:
            return original(module, *args, **kwargs)
        if not entry.called:
            entry.called = self._news = True
        if not depth:
            self.scene.root_begins()
        stack.append(entry)
        try:
            # A root without taps still shows whether a backward pass goes through it.
            passing = entry.ports is None and (depth or self.gradients is None)
            if passing and not interceptors:
                return original(module, *args, **kwargs)
            if passing:
                return self._passed(entry, module, original, args, kwargs)
            return self._observed(entry, module, original, args, kwargs)
        finally:
            # An exception may have left deeper frames' entries behind (a recompute that stops early).
            del stack[depth:]
            if not depth:
                self.scene.root_ended()
                if self._news:
                    self._guarded(self._tell_unfired)

    def abandon(self) -> None:
        """In a forked child: this capture is the parent's, its hooks must not speak here."""
        if self.gradients is not None:
            self.gradients.stop()

    def _enter_root(self, module: nn.Module) -> Entry | None:
        if torch._C._get_tracing_state() is not None or getattr(module, "_is_replica", False):
            return None
        entry = self.registry.outermost(module)
        if entry is None:
            return None
        root = entry.root
        if root.call < 0 or (root.stands_for(module) and not in_backward()):
            self._begin(root)
        return entry

    def _begin(self, root: Root) -> None:
        """A call of the root begins: for the capture, a step."""
        root.call += 1
        self.recorder.begin_step(root.index)
        if root.call == 0:
            self.recorder.announce()

    def _begun(self, root: Root) -> None:
        """After the step was counted: who may change the parameters comes before who records them."""
        root.told = root.call
        for begins in beginnings:
            begins(root)
        if root.call == 0 and self.recorder.options.parameters:
            self._guarded(record_parameters, self.recorder, root)

    def _observed(
        self, entry: Entry, module: nn.Module, original: Original, args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        scene = self.scene
        call = self._guarded(self._open, entry, args, kwargs)
        if call is None:
            return original(module, *args, **kwargs)
        for interceptor in interceptors:
            args, kwargs = interceptor(call, "input", (args, kwargs))
        self._guarded(self._inputs, call, args, kwargs)
        open_calls = scene.calls
        depth = len(open_calls)
        open_calls.append(call)
        try:
            for surround in surrounds:
                original = surround(call, original)
            output = original(module, *args, **kwargs)
        finally:
            del open_calls[depth:]
        for interceptor in interceptors:
            output = interceptor(call, "output", output)
        self._guarded(self._outputs, call, output)
        return output

    def _passed(
        self, entry: Entry, module: nn.Module, original: Original, args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        """A call of a module without taps: only interceptors look at it, nothing is in its sight."""
        recompute = in_backward()
        number = self._recomputed_call(entry, args, kwargs) if recompute else entry.root.call
        call = OpenCall(entry, self.recorder.tick(), number, recompute, _BLIND)
        for interceptor in interceptors:
            args, kwargs = interceptor(call, "input", (args, kwargs))
        for surround in surrounds:
            original = surround(call, original)
        output = original(module, *args, **kwargs)
        for interceptor in interceptors:
            output = interceptor(call, "output", output)
        return output

    def _open(self, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OpenCall:
        recompute = in_backward()
        number = entry.root.call
        if recompute:
            number = self._recomputed_call(entry, args, kwargs)
        return OpenCall(entry, self.recorder.tick(), number, recompute)

    def _recomputed_call(self, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """The root's call that is run again: several may be waiting for their backward pass."""
        for _, tensor in flatten.arguments(entry.arguments, args, kwargs):
            number = self.flow.call_of(tensor)
            if number >= 0:
                return number
        calls = self.scene.calls
        return calls[-1].call if calls and calls[-1].recompute else entry.root.call

    def _inputs(self, call: OpenCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = call.entry.arguments
        found = flatten.arguments(names, args, kwargs, self._skipped(call))
        self._record_all(call, found, "input", call.sight)

    def _outputs(self, call: OpenCall, output: Any) -> None:
        found = flatten.flatten(output, "output", self._skipped(call))
        scene = self.scene
        # What this call computed from is what its own outputs may come from.
        around = scene.here
        scene.calls.append(call)
        try:
            self._record_all(call, found, "output", around)
        finally:
            scene.calls.pop()

    def _record_all(
        self,
        call: OpenCall,
        found: Iterator[tuple[str, torch.Tensor]],
        role: str,
        seen_by: Sight,
    ) -> None:
        """Record what is wanted of ``found``; ``seen_by`` is where code can use it from then on."""
        ports = call.entry.ports
        if ports is None:
            if self.gradients is not None and role == "output":
                for _, tensor in found:
                    self.gradients.follow(tensor, call, None)
            return
        for port, tensor in found:
            number = self._record(call, port, tensor, role) if port in ports else None
            if number is not None:
                seen_by.sees(number, is_traced(tensor))

    def _record(self, call: OpenCall, port: str, tensor: torch.Tensor, role: str) -> int | None:
        entry = call.entry
        recorder = self.recorder
        name = f"{entry.module}:{port}"
        tags = None if call.tags is None else call.tags.get(port)
        if self._filtered and not recorder.wants(
            name, kind="activation", role=role, module=entry.module, module_class=entry.class_name,
            tags=tags,
        ):  # fmt: skip
            return None
        sources, parents = self.lineage.trace(tensor)
        number = recorder.observe(
            name,
            tensor,
            role=role,
            module=entry.module,
            module_class=entry.class_name,
            root=entry.root.index,
            call=call.call,
            mesh=entry.root.mesh,
            tags=tags,
            sources=sources,
            parents=parents,
            reduction=entry.reduction if role == "output" else 0,
            recompute=call.recompute,
            begun=call.begun,
        )
        if number is None:
            if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
                entry.in_graph = self._news = True
        else:
            entry.fired = True
            self.flow.observed(tensor, number, call.call)
            if self.gradients is not None:
                self.gradients.follow(tensor, call, name)
        return number

    def _skipped(self, call: OpenCall) -> Callable[[str, Any], None]:
        """What to do with an argument or result that is neither a tensor nor a container."""

        def skipped(port: str, value: Any) -> None:
            kind = type(value).__qualname__
            if flatten.is_cache(value):
                return
            self.recorder.note(
                f"{call.entry.class_name}:{port} is a {kind}: tensors inside such objects are not observed"
            )

        return skipped

    def _tell_unfired(self) -> None:
        self._news = False
        self.recorder.report("unfired", unfired(self.registry))

    def _guarded(self, act: Callable[..., Any], *args: Any) -> Any:
        """What ``act`` returns, its time counted as observing; None and a problem where it fails."""
        recorder = self.recorder
        counted, started = recorder.seconds, time.perf_counter()
        try:
            return act(*args)
        except Exception as error:  # noqa: BLE001 - the program must run whatever befalls its observer
            recorder.problem(f"observing failed: {_told(error)}")
            return None
        finally:
            # observe() counts its own time, which lies inside this one.
            recorder.seconds = counted + time.perf_counter() - started


def _told(error: Exception) -> str:
    """An error of our own on one line, with the place it came from."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno}, {frame.name})"
