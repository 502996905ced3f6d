"""The backends of one group on one kind of device: agreed facts, and the reducers they allow."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist

from twinrun.collectives import probe
from twinrun.collectives.agreement import agree
from twinrun.collectives.algorithm import Reducer
from twinrun.collectives.exchange import Exchange
from twinrun.collectives.facts import GroupFacts, Plan, Request
from twinrun.collectives.ipc_memory import shareable
from twinrun.collectives.library import LibraryReducer
from twinrun.collectives.plan import makeable, plan
from twinrun.collectives.wishes import Wishes
from twinrun.env import environment
from twinrun.errors import LaunchError, TwinrunError, UnavailableError
from twinrun.launch.decision import Decision


class Line:
    """Facts and reducers of a group on ``device``; made by all its ranks at the same point.

    ``PeerError`` where the ranks cannot agree, ``LaunchError`` or ``UnavailableError`` where a
    backend that was asked for by name cannot be had. A backend that merely fails to come up is
    closed on all ranks, and the next in line is tried.
    """

    def __init__(
        self,
        group: dist.ProcessGroup,
        exchange: Exchange,
        device: torch.device,
        library: str,
        wishes: Wishes,
    ) -> None:
        self._reducers: dict[str, Reducer] = {library: LibraryReducer(group)}
        self.decision: Decision | None = None
        self._exchange = exchange
        if exchange.size == 1:
            self.facts = _alone(exchange, device, library, wishes)
            return
        agreed = agree(exchange, device, library, wishes, environment())
        self.facts, self.decision = agreed.facts, agreed.decision
        self._test_peers(device)
        self._make(group, device)
        self._hold_to_the_name()

    def plan(self, request: Request) -> Plan:
        """The plan for one request."""
        return plan(self.facts, request)

    def always(self, request: Request, chosen: Plan) -> bool:
        """Whether ``chosen`` is the plan inside and outside of captures alike."""
        if self.facts.device == "cpu":
            return True
        try:
            plans = [
                self.plan(replace(request, capturing=capturing, registers=registers))
                for capturing, registers in ((False, False), (True, False), (True, True))
            ]
        except UnavailableError:
            return False
        return all(found == chosen for found in plans)

    def reducer(self, chosen: Plan) -> Reducer:
        """The reducer that carries a plan out."""
        return self._reducers[chosen.backend]

    @property
    def workspace_bytes(self) -> int:
        """What its reducers hold."""
        return sum(reducer.workspace_bytes for reducer in self._reducers.values())

    def end_capture(self) -> None:
        """Let every reducer exchange what was captured."""
        for reducer in self._reducers.values():
            reducer.end_capture()

    def close(self) -> None:
        """Free every workspace. Local, safe twice."""
        for reducer in self._reducers.values():
            reducer.close()

    def _test_peers(self, device: torch.device) -> None:
        in_node = {"symmetric", "ipc"} & set(makeable(self.facts))
        if device.type == "cuda" and in_node:
            trouble = probe.peer_access(self._exchange, device)
            self.facts = replace(self.facts, peer_access=trouble is None)
            reachable = all(self._exchange.gather_json(shareable(device)))
            self.facts = replace(self.facts, in_place=reachable)
            for name in in_node if trouble else ():
                self.facts = self.facts.lacking(name, f"a tested copy failed: {trouble}")

    def _make(self, group: dist.ProcessGroup, device: torch.device) -> None:
        """Make the first backend that comes up on every rank."""
        line = makeable(self.facts)
        for name in line:
            made, trouble = self._try(name, group, device)
            told = self._exchange.first_trouble(trouble)
            if told is None and made is not None:
                self._reducers[name] = made
                break
            if made is not None:
                made.close()
            self.facts = self.facts.lacking(name, told or "it did not come up")
        for name in line:
            if name not in self._reducers and self.facts.refusal(name) is None:
                self.facts = self.facts.lacking(name, "the backend before it serves this group")

    def _try(
        self, name: str, group: dist.ProcessGroup, device: torch.device
    ) -> tuple[Reducer | None, str | None]:
        try:
            return probe.module(name).make(group, self._exchange, self.facts, device), None
        except TwinrunError as error:
            return None, f"{error.summary} {error.seen or ''}".strip()
        except (RuntimeError, OSError) as error:
            return None, (str(error).splitlines() or [type(error).__name__])[0]

    def _hold_to_the_name(self) -> None:
        """A backend asked for by name that this group cannot have at all is refused, not replaced."""
        asked = self.facts.asked
        if asked == "auto" or asked in self._reducers:
            return
        declined = plan(self.facts, Request(nbytes=4096, dtype="float32")).why_not(asked)
        reason = declined or f"the group's backend is {self.facts.library or 'none'}"
        self.close()
        kind = UnavailableError if self.facts.in_one_node else LaunchError
        raise kind(
            f"the {asked} all-reduce was asked for by name and cannot be had.",
            seen=f"{reason} (ranks {list(self.facts.ranks)})",
            expected=f"a group that {asked} can serve",
            do="leave the name out (TWINRUN_ALL_REDUCE, --all-reduce): the next in line is used",
        )


def _alone(exchange: Exchange, device: torch.device, library: str, wishes: Wishes) -> GroupFacts:
    described = probe.describe(device)
    return GroupFacts(
        exchange.ranks, ("this",), described.kind, library, described.name, described.capability,
        asked=wishes.backend, deterministic=wishes.deterministic, off=wishes.off,
    )  # fmt: skip
