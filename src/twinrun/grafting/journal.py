"""What a graft says: a line a graft on stderr, a JSON line each beside the capture, and a summary."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinrun.grafting.point import Point, Rank


class Journal:
    """One process's account of its grafts. Thread-safe; never raises into the program.

    ``log``: full (statistics), brief (none) or off (no lines on stderr). ``directory`` gets
    ``<role>-<rank>-<pid>.jsonl``, a line a graft, so that what a killed process did stays known.
    """

    def __init__(self, me: Rank, log: str, directory: Path | None) -> None:
        self.me = me
        self.log = log
        self.sent = 0
        self.received = 0
        self.failed = 0
        self.transforms_failed = 0
        self.nbytes = 0
        self.waited_s = 0.0
        self.reasons: list[str] = []
        """why points failed, the first hundred"""
        self._lock = threading.Lock()
        self._file = -1
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                path = directory / f"{me.role}-{me.rank}-{os.getpid()}.jsonl"
                self._file = os.open(
                    path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
                )
            except OSError as error:
                self.say(f"graft: no JSON lines are kept: {error}")

    @property
    def full(self) -> bool:
        return self.log == "full"

    def say(self, text: str) -> None:
        """A line for the person, whatever ``log`` is."""
        sys.stderr.write(f"twinrun: {self.me}: {text}\n")

    def note_sent(
        self, point: Point, direction: str, facts: Mapping[str, Any], stats: Mapping[str, Any]
    ) -> None:
        """One tensor given: ``facts`` are layout, shape, dtype, receivers, bytes."""
        with self._lock:
            self.sent += 1
            self.nbytes += facts["bytes"]
        self._write("sent", point, direction, {**facts, **stats})
        if self.log != "off":
            told = "".join(
                f"   {key.replace('_', '-')} {value:.4g}" for key, value in stats.items()
            )
            self._line(
                f"sent      {direction}  {point}   {facts['layout']} -> {facts['to']}   "
                f"{facts['shape']} {facts['dtype']}{told}   {facts['channel']}"
            )

    def note_received(
        self, point: Point, direction: str, facts: Mapping[str, Any], stats: Mapping[str, Any]
    ) -> None:
        """One tensor replaced: ``facts`` are senders, note, bytes, seconds waited."""
        with self._lock:
            self.received += 1
            self.nbytes += facts["bytes"]
            self.waited_s += facts["waited_s"]
        self._write("received", point, direction, {**facts, **stats})
        if self.log != "off":
            told = (
                f"   before abs-max {stats['before_abs_max']:.4g}, after {stats['after_abs_max']:.4g}, "
                f"moved by {stats['moved']:.3g} (relative L2)"
                if stats
                else ""
            )
            senders = facts["senders"]
            count = f"{len(senders)} rank{'s' if len(senders) != 1 else ''}"
            self._line(f"received  {direction}  {point}   from {count}   {facts['note']}{told}")

    def note_failed(
        self, point: Point, direction: str, why: str, *, transform: bool = False, trace: str = ""
    ) -> None:
        """One point left alone; by a transform that failed, with its traceback."""
        with self._lock:
            self.failed += 1
            self.transforms_failed += transform
            if len(self.reasons) < 100:
                self.reasons.append(why)
        self._write(
            "failed", point, direction, {"why": why, "transform": transform, "trace": trace}
        )
        self._line(f"FAILED    {direction}  {point}   left as it was: {why}")
        if trace:
            sys.stderr.write(trace)

    def note_mixed(self, point: Point, text: str) -> None:
        """A point that some receivers took and others did not."""
        self._write("mixed", point, "", {"why": text})
        self._line(f"MIXED     {point}   {text}")

    def summary(self, ended: str) -> None:
        """The last line, and its JSON."""
        counts = {
            "sent": self.sent,
            "received": self.received,
            "failed": self.failed,
            "transforms_failed": self.transforms_failed,
            "bytes": self.nbytes,
            "waited_s": round(self.waited_s, 6),
            "ended": ended,
        }
        self._write("summary", None, "", counts)
        self._line(
            f"summary   {self.sent + self.received} grafts ({self.sent} sent, {self.received} received), "
            f"{self.nbytes / (1 << 20):.1f} MiB, {self.waited_s * 1e3:.0f} ms waiting; "
            f"failed {self.failed}, of these transforms {self.transforms_failed}"
            + (f"; {ended}" if ended else "")
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _line(self, text: str) -> None:
        sys.stderr.write(f"{text}\n" if self.me.rank == 0 else f"{text}   [{self.me}]\n")

    def _write(
        self, event: str, point: Point | None, direction: str, facts: Mapping[str, Any]
    ) -> None:
        if self._file < 0:
            return
        line: dict[str, Any] = {"event": event, "role": self.me.role, "rank": self.me.rank}
        if point is not None:
            line |= {"step": point.step, "name": point.name, "occurrence": point.occurrence}
        if direction:
            line["direction"] = direction
        text = json.dumps({**line, **facts}, default=str, separators=(",", ":")) + "\n"
        with self._lock:
            if self._file >= 0:
                try:
                    os.write(self._file, text.encode())
                except OSError:
                    os.close(self._file)
                    self._file = -1
