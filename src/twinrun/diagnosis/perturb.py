"""``--perturb``: what a run begins with is moved by one unit in the last place of its type.

How far that has grown at a point says how far two right runs may lie apart there, because a rounding
placed elsewhere is no larger (the estimate of TTrace's authors). It does not cover discrete choices: a
router's near-tie either tips or it does not.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import torch

from twinrun.grafting.rebuild import rebuild
from twinrun.recorder.aside import is_aside
from twinrun.recorder.core import Recorder
from twinrun.recorder.device import capturing
from twinrun.recorder.intercept import Surround
from twinrun.recorder.scene import OpenCall

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Perturbation:
    """Moves the floating inputs of each root call, or what the first module makes of its whole numbers.

    Each element goes up or down by one unit in the last place, by a generator of its own that is seeded
    with the point's name and the root's call: ranks that hold replicas stay replicas, and shards of
    one shape are moved alike. Zeros, Infs and NaNs stay. Gradients pass through unchanged.
    """

    surround: Surround | None = None

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._seed = recorder.options.perturb
        self._waiting = _Waiting()
        self._moved: dict[str, None] = {}

    def intercept(self, call: OpenCall, phase: str, tree: Any) -> Any:
        """The inputs of a root, else the first floating output below it."""
        if is_aside() or capturing():
            return tree
        waiting = self._waiting.roots
        entry = call.entry
        if call.recompute:
            # The same module once more: it must give what it gave.
            again = phase == "output" and f"{entry.module}:output" in self._moved
            return self._output(call, tree) if again else tree
        if phase == "input" and entry.module == entry.root.label:
            moved = self._inputs(call, tree)
            waiting[entry.root.index] = moved is tree
            return moved
        if phase == "output" and waiting.get(entry.root.index):
            moved = self._output(call, tree)
            waiting[entry.root.index] = moved is tree
            return moved
        return tree

    def _inputs(self, call: OpenCall, tree: Any) -> Any:
        args, kwargs = tree
        names = call.entry.arguments
        new = [
            self._value(call, value, f"input.{names[at] if at < len(names) else at}")
            for at, value in enumerate(args)
        ]
        named = {name: self._value(call, value, f"input.{name}") for name, value in kwargs.items()}
        before = [*args, *kwargs.values()]
        if all(one is other for one, other in zip([*new, *named.values()], before, strict=True)):
            return tree
        return tuple(new), named

    def _output(self, call: OpenCall, tree: Any) -> Any:
        moved = self._value(call, tree, "output")
        if moved is not tree:
            self._moved[f"{call.entry.module}:output"] = None
        return moved

    def _value(self, call: OpenCall, value: Any, port: str) -> Any:
        def visit(at: str, tensor: torch.Tensor) -> torch.Tensor:
            name = f"{call.entry.module}:{at}"
            try:
                moved = nudged(tensor, f"{self._seed}/{name}/{call.call}")
            except Exception as error:  # noqa: BLE001 - the program must run whatever befalls its instrument
                self._recorder.problem(f"{name} was not perturbed: {type(error).__name__}: {error}")
                return tensor
            if moved is not tensor:
                self._recorder.note(f"{name} was moved by one unit in the last place (--perturb)")
            return moved

        return rebuild(value, port, visit)


class _Waiting(threading.local):
    """By root: no floats went into its present call, and none have come out of a module in it yet."""

    def __init__(self) -> None:
        self.roots: dict[int, bool] = {}


def nudged(tensor: torch.Tensor, key: str) -> torch.Tensor:
    """Each element of ``tensor`` one unit in the last place up or down, by ``key`` alone.

    The very tensor where it holds no floats of 16 bits or more. Its gradient is that of the identity.
    """
    dtype = tensor.dtype.to_real() if tensor.dtype.is_complex else tensor.dtype
    if not dtype.is_floating_point or dtype.itemsize not in _BITS or tensor.numel() == 0:
        return tensor
    if hasattr(tensor, "device_mesh") and hasattr(tensor, "to_local"):
        return _distributed(tensor, key)
    with torch.no_grad():
        real = torch.view_as_real(tensor) if tensor.dtype.is_complex else tensor
        change = _changes(real.detach(), key)
        change = torch.view_as_complex(change) if tensor.dtype.is_complex else change
    # Neighbours differ by what their type holds exactly, so the sum is the neighbour.
    return tensor + change


def _distributed(tensor: Any, key: str) -> torch.Tensor:
    local = nudged(tensor.to_local(), key)
    made: torch.Tensor = type(tensor).from_local(
        local,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )
    return made


def _changes(values: torch.Tensor, key: str) -> torch.Tensor:
    """What to add to each value so that it becomes a neighbour of larger or smaller size."""
    values = values.contiguous()
    bits = values.view(_BITS[values.dtype.itemsize])
    up = _signs(values.shape, key).to(values.device)
    steps = torch.where(up, 1, -1).to(bits.dtype)
    # Sign and magnitude: one more in the integer is the next magnitude, whatever the sign.
    moved = (bits + steps).view(values.dtype)
    moved = torch.where(moved.isfinite(), moved, (bits - 1).view(values.dtype))
    still = (values == 0) | ~values.isfinite()
    return torch.where(still, torch.zeros_like(values), moved - values)


def _signs(shape: torch.Size, key: str) -> torch.Tensor:
    """True or False for each element; the same on every device and rank."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randint(0, 2, tuple(shape), generator=generator, dtype=torch.uint8).bool()
