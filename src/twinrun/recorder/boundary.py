"""The call boundary: ``nn.Module.__call__``, what the caller passes and receives.

Outside all of a module's own hooks: under transformers' ``tp_plan`` and torch's
``parallelize_module`` those turn partial sums into what the caller sees, so an observer among the
hooks would see something that nobody else does.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import nn

from twinrun.recorder.core import Recorder, active
from twinrun.recorder.observer import Observer

Function = Callable[..., Any]
_MARK = "_twinrun_boundary"

is_compiling = torch.compiler.is_compiling
_observer: Observer | None = None
_recorder: Recorder | None = None
_unasked: weakref.WeakSet[Recorder] = weakref.WeakSet()
_observers: weakref.WeakKeyDictionary[Recorder, Observer] = weakref.WeakKeyDictionary()


def install(everything: Recorder | None = None) -> None:
    """Put the boundary around every module's call; more than once does nothing more.

    everything: a recorder that also observes what nobody watches (``twinrun run``, attach).
    """
    if everything is not None:
        _unasked.add(everything)
    if hasattr(nn.Module.__call__, _MARK):
        return
    _wrap_subclasses(nn.Module)
    nn.Module.__call__ = _around(nn.Module.__call__)  # type: ignore[method-assign]
    nn.Module.__init_subclass__ = classmethod(_subclass_made)  # type: ignore[assignment, arg-type]


def current() -> Observer | None:
    """The observer of the innermost open recorder; None while nothing is observed."""
    global _observer, _recorder
    recorder = active()
    if recorder is not _recorder:
        _recorder = recorder
        _observer = None if recorder is None else _of(recorder)
    return _observer


def choose_again() -> None:
    """What is watched has changed: every open capture chooses its taps again."""
    for observer in list(_observers.values()):
        observer.registry.reread()


def _of(recorder: Recorder) -> Observer | None:
    known = _observers.get(recorder)
    if known is not None:
        return known
    try:
        made = Observer(recorder, recorder in _unasked, _wrap_forward, _wrap_calls)
    except Exception as error:  # noqa: BLE001 - the program must run whatever befalls its observer
        recorder.problem(f"modules are not observed: {error!r}")
        return None
    _observers[recorder] = made
    return made


def _around(function: Function) -> Function:
    """``function``, a class's ``__call__`` or ``forward``, with its calls observed.

    Code that torch.compile or torch.export traces runs straight through, so that graphs stay whole.
    """

    @functools.wraps(function)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return function(self, *args, **kwargs)
        observer = current()
        if observer is None:
            return function(self, *args, **kwargs)
        return observer.call(self, function, args, kwargs)

    setattr(call, _MARK, function)
    return call


def _wrap(kind: type[nn.Module], name: str) -> None:
    """Put the boundary around a method that this very class defines."""
    function = kind.__dict__.get(name)
    if isinstance(function, FunctionType) and not hasattr(function, _MARK):
        setattr(kind, name, _around(function))


def _wrap_subclasses(kind: type[nn.Module]) -> None:
    """A class with a ``__call__`` of its own is what its callers call."""
    for below in kind.__subclasses__():
        _wrap(below, "__call__")
        _wrap_subclasses(below)


def _wrap_calls(module: nn.Module) -> None:
    """Put the boundary around ``__call__``s that a decorator gave to classes after they were made."""
    kinds = {kind for held in module.modules() for kind in type(held).__mro__}
    for kind in kinds:
        if kind is not nn.Module and issubclass(kind, nn.Module):
            _wrap(kind, "__call__")


def _subclass_made(cls: type[nn.Module], **rest: Any) -> None:
    super(nn.Module, cls).__init_subclass__(**rest)
    _wrap(cls, "__call__")


def _wrap_forward(module: nn.Module) -> None:
    """Observe a root that its program calls through ``.forward()``."""
    for kind in type(module).__mro__:
        if "forward" in kind.__dict__:
            _wrap(kind, "forward")
            return


def _start_afresh() -> None:
    """A forked child has a capture of its own: no root of its parent's is in it."""
    global _observer, _recorder
    _observer = _recorder = None
    for observer in _observers.values():
        observer.abandon()
    _observers.clear()


os.register_at_fork(after_in_child=_start_afresh)
