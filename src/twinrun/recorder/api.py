"""The public face of the recorder: usable in any code, without a trace on it while off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from twinrun.recorder.aside import is_aside
from twinrun.recorder.record import Tag
from twinrun.recorder.scope import tags as tags
from twinrun.recorder.switch import SWITCH, activate, deactivate

if TYPE_CHECKING:
    from twinrun.recorder.core import Recorder
    from twinrun.recorder.parameters import Held
    from twinrun.recorder.watch import watch as watch

__all__ = ["capture", "dump", "dump_gradients", "dump_parameters", "step", "tags", "watch"]


def __getattr__(name: str) -> Any:
    if name == "watch":
        from twinrun.recorder.watch import watch

        return watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def dump(name: str, tensor: torch.Tensor, dims: str | None = None, **tags: Tag) -> None:
    """Record ``tensor`` under ``name`` as it is at this call; does nothing while nothing records.

    dims: how it is laid out over the ranks, ``"t h[tp]"`` (docs/dims.md). tags: free facts that a
    filter may ask for. Inside code that torch.compile traces it is left out, and the capture says so.
    """
    recorder = SWITCH.recorder
    if recorder is None:
        return
    if torch.compiler.is_compiling():
        _left_out_of_graph(name)
        return
    if is_aside():
        return
    recorder.dump(name, tensor, dims, tags)


def step() -> None:
    """End an iteration: what is recorded from now on belongs to the next step."""
    recorder = SWITCH.recorder
    if recorder is not None and not torch.compiler.is_compiling() and not is_aside():
        recorder.mark_step()


def dump_parameters(model: torch.nn.Module) -> None:
    """Record every parameter and buffer of ``model`` as ``<module path>.<name>:parameter``.

    Wrappers around it and inside it leave no trace in the names, as at the call boundary.
    """
    if SWITCH.recorder is None:
        return
    from twinrun.recorder.parameters import held_by

    for held in held_by(model):
        _dump_state(SWITCH.recorder, held, held.name, held.tensor, held.kind)


def dump_gradients(model: torch.nn.Module) -> None:
    """Record the gradient of every parameter that has one, ``main_grad`` where a framework keeps it."""
    if SWITCH.recorder is None:
        return
    from twinrun.recorder.parameters import gradient_of, held_by

    for held in held_by(model):
        gradient = gradient_of(held.tensor) if held.kind == "parameter" else None
        if gradient is not None:
            _dump_state(SWITCH.recorder, held, f"{held.name}.grad", gradient, "gradient")


def _dump_state(recorder: Recorder, held: Held, name: str, tensor: torch.Tensor, kind: str) -> None:
    recorder.observe(
        name,
        tensor,
        kind=kind,
        role="parameter",
        module=held.module,
        module_class=held.module_class,
    )


@contextmanager
def capture(
    path: str | os.PathLike[str], *, overwrite: bool = False, **options: Any
) -> Iterator[Recorder]:
    """Record what the block dumps and watches into the run directory ``path``.

    options: ``filter``, ``steps``, ``mode``, ``mesh``, ``max_bytes``, ``buffer_bytes`` (see
    ``Options``). Every rank of one job may open the same path. CaptureExistsError where it exists,
    FilterError and UsageError for wrong options. A capture opened inside another one takes over
    until its block ends.
    """
    from twinrun.recorder.opening import open_for_block

    recorder = open_for_block(path, overwrite, options)
    activate(recorder)
    try:
        yield recorder
    finally:
        deactivate(recorder)
        recorder.close()


def _left_out_of_graph(name: str) -> None:
    recorder = SWITCH.recorder
    if recorder is not None:
        recorder.note(f"{name!r} was dumped inside a compiled graph and left out")


# Called by the tracer while it compiles, not from the compiled code: the graph stays whole.
_left_out_of_graph._dynamo_marked_constant = True  # type: ignore[attr-defined]
