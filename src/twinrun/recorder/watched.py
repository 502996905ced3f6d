"""The models that the program itself asked to be watched, with their taps."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from torch import nn

from twinrun.recorder.taps import Taps

_watched: list[tuple[weakref.ref[nn.Module], Taps]] = []


def watched_models() -> Iterator[tuple[nn.Module, Taps]]:
    """Every watched model that is still alive, in the order of watching."""
    for ref, taps in list(_watched):
        model = ref()
        if model is not None:
            yield model, taps


def add(model: nn.Module, taps: Taps) -> tuple[weakref.ref[nn.Module], Taps]:
    """Watch a model; the answer is what ``remove`` takes."""
    row = (weakref.ref(model), taps)
    _watched.append(row)
    return row


def remove(row: tuple[weakref.ref[nn.Module], Taps]) -> None:
    """Watch no longer; a second call does nothing."""
    _watched[:] = [held for held in _watched if held is not row]
