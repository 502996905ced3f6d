"""What a graft was asked to do, validated as a whole before anything starts."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinrun.env import Origin
from twinrun.env import variables as V
from twinrun.errors import UsageError
from twinrun.grafting.layouts import Layouts
from twinrun.grafting.point import B2T, ROLES, T2B
from twinrun.layout.mesh import parse_axes

CHANNELS = ("auto", "ipc", "nccl", "host")
LOGS = ("brief", "full", "off")
_TRANSFORM = re.compile(r"(?:(?P<glob>[^=]+)=)?(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)")

COMPARED = ("b2t", "t2b", "baseline_ranks", "target_ranks", "transforms", "dims", "layouts")
"""Both sides must have been started with the same of these."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One side's settings; ``check()`` raises one UsageError that names every problem."""

    role: str
    address: str = "127.0.0.1:29777"
    b2t: str = ""
    t2b: str = ""
    baseline_ranks: int | None = None
    target_ranks: int | None = None
    transforms: tuple[str, ...] = ()
    dims: tuple[str, ...] = ()
    """GLOB=DIMS, or ROLE:GLOB=DIMS: layouts of points that carry no annotation"""
    layouts: str = ""
    """a file of more such layouts (``layouts.py``); ``dims`` win over it"""
    timeout_s: float = 300.0
    meeting_timeout_s: float = 1800.0
    buffer_bytes: int = 1 << 30
    log: str = "full"
    strict: bool = False
    source: str = ""
    """a capture that stands in for the baseline"""
    token: str = ""
    """what direct channels must show; made at the meeting where it is empty"""
    mesh: str = ""
    """this side's own rank grid, ``dp=2,tp=2``, for points that carry no mesh"""
    channel: str = "auto"
    """what this side's GPU tensors travel over: auto (the best that works), ipc, nccl or host"""
    gradient: str = "through"
    """at module boundaries: whether gradients go on through a replaced value, or end at it (leaf)"""
    journal: str = ""
    """directory that gets one file of JSON lines a process"""

    def check(self) -> Settings:
        """Itself; UsageError (a ValueError) with all problems at once."""
        found = [*_problems(self)]
        if not found:
            return self
        if len(found) == 1:
            raise UsageError(f"graft: {found[0]}", do="docs/graft.md lists every setting")
        raise UsageError(
            f"graft: {len(found)} settings are wrong",
            seen=("\n" + " " * 12).join(found),
            do="docs/graft.md lists every setting",
        )

    @property
    def host(self) -> str:
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        return split_address(self.address)[1]

    def compared(self) -> dict[str, Any]:
        """What both sides must agree on, as JSON values; of the layout file its contents. UsageError."""
        held = {key: _plain(getattr(self, key)) for key in COMPARED}
        return held | {"layouts": Layouts.load(self.layouts).told}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **more: Any) -> Settings:
        """Read ``TWINRUN_GRAFT_*``; ``more`` are values for what they leave out. UsageError."""
        found: dict[str, Any] = {}
        for name, variable in _VARIABLES.items():
            value = variable.get(environ)
            if value is not None:
                found[name] = tuple(value.split("\n")) if name in _LISTS else value
        for path in ("journal", "layouts"):
            if path in found:
                found[path] = str(found[path])
        return cls(**{**more, **found}).check()

    def export(self) -> None:
        """Set the variables for every process that this one starts."""
        for name, variable in _VARIABLES.items():
            value = getattr(self, name)
            if value not in (None, "", ()):
                held = "\n".join(value) if name in _LISTS else value
                variable.set(held, Origin("flag", f"--graft-{name.replace('_', '-')}"))

    def to_environment(self) -> dict[str, str]:
        """The variables that ``from_environment`` reads the same settings from."""
        texts = {}
        for name, variable in _VARIABLES.items():
            value = getattr(self, name)
            if value not in (None, "", ()):
                texts[variable.name] = variable.kind.render(
                    "\n".join(value) if name in _LISTS else value
                )
        return texts


_LISTS = ("transforms", "dims")
_VARIABLES: dict[str, Any] = {
    "role": V.GRAFT_ROLE,
    "address": V.GRAFT_ADDRESS,
    "b2t": V.GRAFT_B2T,
    "t2b": V.GRAFT_T2B,
    "baseline_ranks": V.GRAFT_BASELINE_RANKS,
    "target_ranks": V.GRAFT_TARGET_RANKS,
    "transforms": V.GRAFT_TRANSFORMS,
    "dims": V.GRAFT_DIMS,
    "layouts": V.GRAFT_LAYOUTS,
    "timeout_s": V.GRAFT_TIMEOUT_S,
    "meeting_timeout_s": V.GRAFT_MEETING_TIMEOUT_S,
    "buffer_bytes": V.GRAFT_BUFFER,
    "log": V.GRAFT_LOG,
    "strict": V.GRAFT_STRICT,
    "source": V.GRAFT_FROM,
    "token": V.GRAFT_TOKEN,
    "mesh": V.GRAFT_MESH,
    "channel": V.GRAFT_CHANNEL,
    "gradient": V.GRAFT_GRADIENT,
    "journal": V.GRAFT_JOURNAL,
}


def ended_mark(journal: str, role: str) -> Path:
    """The file by which whoever started both jobs tells one that the other has ended."""
    return Path(journal) / f"ended-{role}"


def split_address(address: str) -> tuple[str, int]:
    """HOST and PORT of ``HOST:PORT`` or ``[v6]:PORT``; ValueError otherwise."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is no HOST:PORT")
    return host.strip("[]"), int(port)


def split_transform(text: str) -> tuple[str, str]:
    """(glob, dotted path) of ``[GLOB=]pkg.module.function``; ValueError otherwise."""
    match = _TRANSFORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no [GLOB=]pkg.module.function")
    return match["glob"] or "*", match["path"]


def split_dims(text: str) -> tuple[str, str, str]:
    """(role or "", glob, dims text) of ``[ROLE:]GLOB=DIMS``; ValueError otherwise."""
    glob, equals, dims = text.partition("=")
    role, colon, rest = glob.partition(":")
    if colon and role in ROLES:
        glob = rest
    else:
        role = ""
    if not equals or not glob or not dims.strip():
        raise ValueError(f"{text!r} is no [baseline:|target:]GLOB=DIMS")
    return role, glob, dims.strip()


def difference(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], me: str, them: str
) -> str | None:
    """What two sides disagree on, with both texts, or None."""
    rows = []
    for key in COMPARED:
        if key.endswith("_ranks") and (mine.get(key) is None or theirs.get(key) is None):
            continue
        if mine.get(key) != theirs.get(key):
            rows.append(f"{key}: {me} has {mine.get(key)!r}, {them} has {theirs.get(key)!r}")
    return "; ".join(rows) or None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _problems(s: Settings) -> list[str]:
    from twinrun.recorder.filter import parse_filter

    found = []
    if s.role not in ROLES:
        found.append(f"role {s.role!r} is neither 'baseline' nor 'target'")
    if not s.source:
        found += _address_problems(s.address)
    if not s.b2t and not s.t2b:
        found.append("neither --b2t nor --t2b names a point, so nothing would flow")
    if s.source and s.t2b:
        found.append(f"--t2b {s.t2b!r} cannot flow into a capture ({s.source})")
    for flag, text in ((B2T, s.b2t), (T2B, s.t2b)):
        found += _parse_problem(f"--{flag}", text, parse_filter) if text else []
    for flag, count in (
        ("--graft-baseline-ranks", s.baseline_ranks),
        ("--graft-target-ranks", s.target_ranks),
    ):
        if count is not None and count < 1:
            found.append(f"{flag} {count} is less than 1")
    for text in s.transforms:
        found += _parse_problem("--transform", text, split_transform)
    for text in s.dims:
        found += _dims_problem(text)
    found += _parse_problem("--graft-layouts", s.layouts, Layouts.load)
    for flag, number in (
        ("--graft-timeout", s.timeout_s),
        ("--graft-meeting-timeout", s.meeting_timeout_s),
    ):
        if not 0 < number < 1e9:
            found.append(f"{flag} {number} is not a positive number of seconds")
    if s.buffer_bytes < 0:
        found.append(f"--graft-buffer {s.buffer_bytes} is negative")
    if s.channel not in CHANNELS:
        found.append(f"the channel {s.channel!r} is none of {', '.join(CHANNELS)}")
    if s.gradient not in ("leaf", "through"):
        found.append(f"--graft-gradient {s.gradient!r} is neither 'leaf' nor 'through'")
    found += _parse_problem("--mesh", s.mesh, parse_axes)
    if s.log not in LOGS:
        found.append(f"--graft-log {s.log!r} is none of {', '.join(LOGS)}")
    return found


def _parse_problem(flag: str, text: str, parse: Any) -> list[str]:
    try:
        parse(text)
    except ValueError as error:
        return [f"{flag}: {error}"]
    return []


def _dims_problem(text: str) -> list[str]:
    from twinrun.layout.parse import parse_dims

    try:
        parse_dims(split_dims(text)[2])
    except ValueError as error:
        return [f"--graft-dims: {error}"]
    return []


def _address_problems(address: str) -> list[str]:
    try:
        host, port = split_address(address)
    except ValueError as error:
        return [f"--graft-address: {error}"]
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return [f"--graft-address: {host!r} does not resolve ({error})"]
    return []
