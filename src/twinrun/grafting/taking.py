"""The receiving half: messages set aside, and boxes put together to one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Protocol

import torch

from twinrun.errors import PeerError, TwinrunError
from twinrun.grafting.inlet import HOST, Inlet
from twinrun.grafting.memory import blocks, fill
from twinrun.grafting.plan import Part, Plan
from twinrun.grafting.point import Point, Rank
from twinrun.grafting.pool import Pool
from twinrun.grafting.values import decode_value
from twinrun.grafting.wire import Header
from twinrun.layout.box import Box
from twinrun.numerics.bits import same_bits
from twinrun.recorder.dtypes import BY_NAME


class PointFailed(TwinrunError):
    """One point cannot be grafted; the program's own tensor is used and the graft goes on."""


_POOL = Pool()
_SUMS = {
    torch.float64: torch.float64,
    torch.complex64: torch.complex64,
    torch.complex128: torch.complex128,
}


class Payload(Protocol):
    """Bytes of one message, read in order."""

    @property
    def left(self) -> int: ...

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        ...

    def read_tensor(self, into: torch.Tensor, dtype: torch.dtype, *, add: bool = False) -> None: ...


@dataclass
class Aside:
    """A message that arrived before its point was reached, in memory of its own."""

    header: Header
    data: torch.Tensor
    at: int = 0

    @property
    def left(self) -> int:
        return self.data.numel() - self.at

    @property
    def device(self) -> torch.device:
        return self.data.device

    def gift(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """As ``Inlet.gift``."""
        return None

    def hold(self) -> None:
        """As ``Inlet.hold``."""

    def discard(self) -> None:
        """As ``Inlet.discard``."""

    def read_tensor(self, into: torch.Tensor, dtype: torch.dtype, *, add: bool = False) -> None:
        """As ``Inlet.read_tensor``, from the copy."""
        nbytes = into.numel() * dtype.itemsize
        part = self.data[self.at : self.at + nbytes]
        if part.numel() != nbytes:
            raise PeerError("a message is shorter than its boxes")
        self.at += nbytes
        if self.at % dtype.itemsize or part.data_ptr() % dtype.itemsize:
            part = part.clone()
        arrived = part.view(dtype).view(into.shape)
        if not add:
            fill(into, arrived)
            return
        if not into.is_cpu:
            into.add_(arrived.to(into.device))
            return
        for index, _ in blocks(tuple(into.shape)):
            into[index].add_(arrived[index])


class Stash:
    """Messages of points that this rank has not reached, at most ``limit_bytes`` of them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held: dict[tuple[Rank, Point], Aside] = {}
        self._bytes = 0

    def put(self, sender: Rank, point: Point, header: Header, inlet: Inlet) -> None:
        """Read the message that ``inlet`` is at and keep it; PeerError beyond the limit."""
        self._bytes += inlet.left
        if self._bytes > self._limit_bytes and self._held:
            raise PeerError(
                f"{sender} is {self._bytes >> 20} MiB ahead of this rank, more than --graft-buffer allows",
                seen=f"{point} came while {len(self._held)} messages wait for their points",
                do="raise --graft-buffer, or bring the two programs' orders closer together",
            )
        self._held[sender, point] = Aside(header, inlet.read_all())

    def take(self, sender: Rank, point: Point) -> Aside | None:
        """The message of ``point``, if it is here."""
        found = self._held.pop((sender, point), None)
        if found is not None:
            self._bytes -= found.data.numel()
        return found

    def drop_before(self, point: Point) -> list[Point]:
        """Forget what can no longer be wanted: earlier occurrences of this name, earlier steps."""
        if not self._held:
            return []
        late = [
            key
            for key in self._held
            if key[1].step < point.step or (key[1].name == point.name and key[1].at < point.at)
        ]
        for key in late:
            self._bytes -= self._held.pop(key).data.numel()
        return [dropped for _, dropped in late]

    def __len__(self) -> int:
        return len(self._held)


class Assembly:
    """One receiver's own tensor in the making, on ``device``; the caller's tensor is not touched."""

    def __init__(
        self, plan: Plan, shape: Sequence[int], dtype: torch.dtype, device: torch.device = HOST
    ) -> None:
        self._dtype = dtype
        made_in = _SUMS.get(dtype, torch.float32 if dtype.is_floating_point else torch.int64)
        self._tensor = empty(tuple(shape), made_in if plan.sums else dtype, device)
        for box in plan.zeros:
            self._tensor[box.slices].zero_()

    def put(self, parts: Sequence[Part], payload: Payload, dtype: torch.dtype) -> bool:
        """Read the boxes of one sender into their places; whether those to be checked were equal."""
        equal = True
        for part in parts:
            place = self._tensor[_index(part.wanted)]
            if part.check:
                again = torch.empty(place.shape, dtype=place.dtype, device=place.device)
                payload.read_tensor(again, dtype)
                equal &= same_bits(place, again)
            else:
                payload.read_tensor(place, dtype, add=part.add)
        return equal

    def finish(self) -> torch.Tensor:
        """The tensor, in the receiver's dtype; the caller owns it."""
        if self._tensor.dtype == self._dtype:
            return self._tensor
        out = empty(tuple(self._tensor.shape), self._dtype, self._tensor.device)
        fill(out, self._tensor)
        return out


@lru_cache(maxsize=4096)
def _index(box: Box) -> tuple[slice, ...]:
    return box.slices


def unequal_replicas(point: Point, senders: Sequence[int], role: str) -> PointFailed:
    """Ranks that an inferred layout calls replicas hold different bits."""
    named = ", ".join(map(str, senders))
    return PointFailed(
        f"{point}: by their shapes all {role} ranks hold the same, but rank {named} holds other bits",
        do="say how it is laid out: --graft-dims, for instance '... h[tp]' or '... h[tp:partial]'",
    )


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of undefined values that the caller owns; large ones in host memory come out of a pool."""
    if device.type == "cpu":
        return _POOL.empty(shape, dtype)
    return torch.empty(shape, dtype=dtype, device=device)


def castable(source: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether a value of one dtype may stand in for the other: real for real, integers exactly alike."""
    if source == wanted:
        return True
    return all(d.is_floating_point for d in (source, wanted)) or all(
        d.is_complex for d in (source, wanted)
    )


def read_whole(header: Header, payload: Payload, who: str) -> tuple[torch.Tensor | None, Any, Any]:
    """(tensor or None, plain value, extras) of a message that carries a whole value."""
    specs = header.get("b")
    if not isinstance(specs, list):
        raise PeerError(f"{who} sent a whole value without its tensors' shapes")
    tensors = [_read_blob(spec, payload, who) for spec in specs]
    plain = isinstance(header.get("v"), list)
    beside = tensors if plain else tensors[1:]
    value = decode_value(header["v"][0], beside, who) if plain else None
    return (
        (None if plain else tensors[0] if tensors else None),
        value,
        decode_value(header.get("x"), beside, who),
    )


def _read_blob(spec: Any, payload: Payload, who: str) -> torch.Tensor:
    try:
        name, shape = spec
        dtype = BY_NAME[name]
        if prod(int(n) for n in shape) * dtype.itemsize > payload.left:
            raise ValueError("it is larger than the message")
        made = torch.empty([int(n) for n in shape], dtype=dtype, device=payload.device)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise PeerError(
            f"{who} sent a tensor that makes no sense: {error}", seen=repr(spec)[:80]
        ) from None
    payload.read_tensor(made, dtype)
    return made
