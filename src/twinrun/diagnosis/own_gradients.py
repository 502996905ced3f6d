"""What a module alone sends back to its inputs: ``<module>:input.<port>:grad.own``.

The gradient of a tensor is the total over every use of it, inside the module and outside. Here the
contributions that the module's own nodes make are added up beside the backward pass, which goes on as
it would have: no node is put into the graph, because that would add the same numbers in another order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

from twinrun.recorder.aside import is_aside
from twinrun.recorder.core import Recorder
from twinrun.recorder.flatten import arguments, flatten
from twinrun.recorder.intercept import Interceptor
from twinrun.recorder.scene import OpenCall

WALK = 65536
"""Nodes of one call that are looked at; a block of a large model has a few hundred."""

Edge = tuple[Any, int]
Original = Callable[..., Any]


class OwnGradients:
    """Follows the floating inputs of every tapped module that require grad."""

    intercept: Interceptor | None = None

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def surround(self, call: OpenCall, original: Original) -> Original:
        """What is called in place of a tapped module, in a forward pass that is differentiated."""
        if call.entry.ports is None or not torch.is_grad_enabled() or is_aside():
            return original

        def followed(held: nn.Module, *args: Any, **kwargs: Any) -> Any:
            shares = self._guarded(lambda: self._shares(call, args, kwargs))
            if not shares:
                return original(held, *args, **kwargs)
            since = torch._C._autograd._get_sequence_nr()
            output = original(held, *args, **kwargs)
            self._guarded(lambda: self._follow(call, shares, since, output))
            return output

        return followed

    def _shares(
        self, call: OpenCall, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[Edge, _Share]:
        shares: dict[Edge, _Share] = {}
        ports = call.entry.ports
        for port, tensor in arguments(call.entry.arguments, args, kwargs):
            if ports is None or port not in ports or not tensor.requires_grad:
                continue
            edge = get_gradient_edge(tensor)
            share = shares.setdefault((edge.node, edge.output_nr), _Share())
            share.ports.append(port)
            if len(share.ports) == 1:
                self._listen(call, share, tensor)
        return shares

    def _listen(self, call: OpenCall, share: _Share, tensor: torch.Tensor) -> None:
        """The total arrives when every contribution has been made, this module's among them."""

        def arrived(total: torch.Tensor) -> None:
            own = share.taken()
            if own is not None:
                for port in share.ports:
                    self._record(call, port, own)

        tensor.register_hook(arrived)  # type: ignore[no-untyped-call]

    def _follow(self, call: OpenCall, shares: dict[Edge, _Share], since: int, output: Any) -> None:
        ends = [
            (edge.node, edge.output_nr)
            for _, tensor in flatten(output, "output")
            if tensor.requires_grad
            for edge in [get_gradient_edge(tensor)]
        ]
        for edge in ends:
            if edge in shares:
                # Who uses its output uses its input: the two cannot be told apart.
                share = shares.pop(edge)
                self._recorder.note(
                    f"{call.entry.module}:{share.ports[0]} is given back as it is: no own gradient"
                )
        for node, place, edge in _into(shares, (node for node, _ in ends), since):
            node.register_hook(_adding(shares[edge], place))

    def _record(self, call: OpenCall, port: str, own: torch.Tensor) -> None:
        entry = call.entry
        self._recorder.observe(
            f"{entry.module}:{port}:grad.own",
            own,
            kind="gradient",
            role="output",
            **call.facts,
        )

    def _guarded(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - the program must run whatever befalls its observer
            self._recorder.problem(
                f"own gradients were not followed: {type(error).__name__}: {error}"
            )
            return None


@dataclass(slots=True, eq=False)
class _Share:
    """What one module has sent back so far to one of its inputs (all ``ports`` that it came in by)."""

    ports: list[str] = field(default_factory=list)
    total: torch.Tensor | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, part: torch.Tensor) -> None:
        """One node's contribution; several devices' threads may come at once."""
        with self.lock, torch.no_grad():
            part = part.detach()
            self.total = part if self.total is None else self.total + part

    def taken(self) -> torch.Tensor | None:
        """The sum, once: a second backward pass begins a new one."""
        with self.lock:
            total, self.total = self.total, None
            return total


def _adding(share: _Share, place: int) -> Callable[[Any, Any], None]:
    def made(given: Any, arrived: Any) -> None:
        part = given[place] if place < len(given) else None
        if isinstance(part, torch.Tensor):
            share.add(part)

    return made


def _into(
    wanted: dict[Edge, _Share], ends: Iterable[Any], since: int
) -> Iterator[tuple[Any, int, Edge]]:
    """Nodes of the graph made since number ``since`` that feed the wanted edges, and by which place."""
    waiting = [node for node in ends if node is not None]
    seen: set[Any] = set(waiting)
    while waiting:
        node = waiting.pop()
        # Leaves have the largest number and lead nowhere; older nodes are other modules'.
        if node._sequence_nr() < since:
            continue
        for place, (after, number) in enumerate(node.next_functions):
            edge = (after, number)
            if edge in wanted:
                yield node, place, edge
            elif after is not None and after not in seen:
                if len(seen) >= WALK:
                    raise OverflowError(f"more than {WALK} nodes in one call")
                seen.add(after)
                waiting.append(after)
