"""Which record fed which: by storage and version, and by the autograd graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef as _WeakStorage

# Nodes walked before a tensor's makers are called unknown; a 100-layer model between two dumps is ~4,000.
WALK = 8192
KEPT_PER_TENSOR = 64
UNKNOWN = -1
_KEY = "twinrun"
_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
Place = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]


@dataclass(slots=True)
class _Seen:
    """One value that was recorded: where it lay, at which version, and as which records."""

    storage: Any
    version: int
    place: Place
    numbers: list[int]
    call: int


class Flow:
    """Data flow among the records of one process.

    A storage's address may be reused, so each entry holds a weak reference that keeps the address
    its own. Nothing of the program's is kept alive: neither memory nor graph.
    """

    def __init__(self) -> None:
        self._by_storage: dict[int, list[_Seen]] = {}
        self._prune_at = 4096

    def trace(self, tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """``(sources, parents)`` of a tensor that is about to be recorded.

        ``sources``: records of this very value. ``parents``, where there are no sources: records
        that the autograd graph says it was computed from, with ``UNKNOWN`` (-1) where the graph is
        too large to say all; None for a tensor that has no graph.
        """
        seen = self._find(tensor)
        sources = tuple(seen.numbers) if seen is not None else ()
        if sources:
            return sources, ()
        return (), _parents(tensor)

    def observed(self, tensor: torch.Tensor, number: int, call: int = -1) -> None:
        """Remember that record ``number`` holds this tensor's present value."""
        seen = self._find(tensor)
        if seen is None:
            seen = self._remember(tensor, call)
        if seen is not None and len(seen.numbers) < KEPT_PER_TENSOR:
            seen.numbers.append(number)
        if tensor.grad_fn is not None:
            graph: dict[str, Any] = tensor.grad_fn.metadata  # type: ignore[assignment]
            known = graph.setdefault(_KEY, {})
            known.setdefault(tensor.output_nr, []).append(number)

    def call_of(self, tensor: torch.Tensor) -> int:
        """The root's call in which this value was recorded, or -1."""
        seen = self._find(tensor)
        return -1 if seen is None else seen.call

    def _find(self, tensor: torch.Tensor) -> _Seen | None:
        where = _where(tensor)
        if where is None:
            return None
        address, version, place = where
        for seen in self._by_storage.get(address, ()):
            if seen.version == version and seen.place == place and not seen.storage.expired():
                return seen
        return None

    def _remember(self, tensor: torch.Tensor, call: int) -> _Seen | None:
        where = _where(tensor)
        if where is None:
            return None
        if len(self._by_storage) >= self._prune_at:
            self._prune()
        address, version, place = where
        weak = _WeakStorage(_local(tensor).untyped_storage())  # type: ignore[no-untyped-call]
        seen = _Seen(weak, version, place, [], call)
        entries = self._by_storage.setdefault(address, [])
        # An older version of the same memory can be nobody's input any more, except as a saved view.
        entries[:] = [e for e in entries if e.version == version and not e.storage.expired()]
        entries.append(seen)
        return seen

    def _prune(self) -> None:
        self._by_storage = {
            address: entries
            for address, entries in self._by_storage.items()
            if not entries[-1].storage.expired()
        }
        self._prune_at = max(4096, 2 * len(self._by_storage))


def is_traced(tensor: torch.Tensor) -> bool:
    """Whether the autograd graph shows what is computed from this tensor."""
    return tensor.grad_fn is not None and torch.is_grad_enabled()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor that holds the memory: a DTensor's own part, an AsyncCollectiveTensor's result."""
    for attribute in ("_local_tensor", "elem"):
        held = None if type(tensor) in _PLAIN else getattr(tensor, attribute, None)
        if isinstance(held, torch.Tensor):
            tensor = held
    return tensor


def _where(
    tensor: torch.Tensor,
) -> tuple[int, int, Place] | None:
    """The storage's identity, the version, and the view; None where a tensor has no such thing."""
    tensor = _local(tensor)
    if tensor.is_inference() or tensor.layout is not torch.strided:
        return None
    try:
        storage = tensor.untyped_storage()
        place = (int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        return storage._cdata, tensor._version, place
    except (RuntimeError, NotImplementedError):
        # Wrapper subclasses and functorch tensors have no storage of their own.
        return None


def _parents(tensor: torch.Tensor) -> tuple[int, ...] | None:
    if tensor.grad_fn is None:
        # A leaf that takes gradients was made by nobody; another tensor's makers left no graph.
        return () if tensor.requires_grad else None
    found: dict[int, None] = {}
    walked: set[Any] = set()
    waiting: list[tuple[Any, int]] = [(tensor.grad_fn, tensor.output_nr)]
    while waiting:
        node, output = waiting.pop()
        known = _known(node, output)
        if known:
            found.update(dict.fromkeys(known))
            continue
        if node in walked:
            continue
        if len(walked) >= WALK:
            return (*sorted(found), UNKNOWN)
        walked.add(node)
        waiting.extend((after, nr) for after, nr in _next(node))
    return tuple(sorted(found))


def _known(node: Any, output: int) -> list[int] | None:
    metadata: dict[str, Any] = node.metadata
    known = metadata.get(_KEY)
    return None if known is None else known.get(output)


def _next(node: Any) -> Iterator[tuple[Any, int]]:
    return ((after, nr) for after, nr in node.next_functions if after is not None)
