"""What the processes of a graft wrote down, summed up for the person who started it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Account:
    """Counts over all processes; ``mixed`` are points that some receivers took and others did not."""

    processes: int = 0
    sent: int = 0
    received: int = 0
    failed: int = 0
    transforms_failed: int = 0
    nbytes: int = 0
    waited_s: float = 0.0
    mixed: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def contained(self) -> bool:
        """Whether anything went wrong that the programs were spared."""
        return bool(self.failed or self.mixed or self.ended)

    def lines(self) -> list[str]:
        """The summary, a line each."""
        told = [
            f"summary   {self.received} grafts received, {self.sent} sent, {self.nbytes / (1 << 20):.1f} MiB, "
            f"{self.waited_s * 1e3:.0f} ms waiting; failed {self.failed}, "
            f"of these transforms {self.transforms_failed}; mixed {len(self.mixed)}"
        ]
        told += [f"failed    {count} x {why}" for why, count in self.failures.most_common(8)]
        told += [f"mixed     {point}" for point in self.mixed[:8]]
        return [*told, *(f"ended     {why}" for why in self.ended[:8])]


def read_account(directories: Sequence[Path]) -> Account:
    """Read every ``*.jsonl`` below the ``graft`` folder of these captures; torn lines are skipped."""
    account = Account()
    outcomes: dict[tuple[str, int, str, int], set[str]] = defaultdict(set)
    for directory in directories:
        for path in sorted((directory / "graft").glob("*.jsonl")):
            account.processes += 1
            for line in path.read_text(errors="replace").splitlines():
                try:
                    body = json.loads(line)
                except ValueError:
                    continue
                if isinstance(body, dict):
                    _add(account, body, outcomes)
    account.mixed = [
        f"step {step}  {name}{f' #{occurrence}' if occurrence else ''}"
        for (_, step, name, occurrence), seen in sorted(outcomes.items())
        if len(seen) > 1
    ]
    return account


def _add(
    account: Account, body: dict[str, Any], outcomes: dict[tuple[str, int, str, int], set[str]]
) -> None:
    event = body.get("event")
    if event in ("received", "failed"):
        point = (
            str(body.get("role")),
            int(body.get("step", 0)),
            str(body.get("name")),
            int(body.get("occurrence", 0)),
        )
        outcomes[point].add(str(event))
    if event == "received":
        account.received += 1
        account.nbytes += int(body.get("bytes", 0))
        account.waited_s += float(body.get("waited_s", 0.0))
    elif event == "sent":
        account.sent += 1
    elif event == "failed":
        account.failed += 1
        account.transforms_failed += bool(body.get("transform"))
        account.failures[f"{body.get('name')}: {str(body.get('why')).splitlines()[0]}"] += 1
    elif event == "summary" and body.get("ended"):
        account.ended.append(f"{body.get('role')} rank {body.get('rank')}: {body['ended']}")
