"""One segment: a safetensors file and its index, which appear whole or not at all.

Payloads are appended behind room kept for the header. Sealing fills the header in, a filler tensor
covering what the room has left over, then renames both files; the index comes last and commits.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from twinrun.recorder.files import sync_directory
from twinrun.recorder.index import Entry
from twinrun.recorder.staging import ALIGNMENT

PAYLOAD_ALIGNMENT = ALIGNMENT
"""Every payload begins at a multiple of this many bytes of its file."""

FILLER = "padding"
_PREAMBLE = f'{{"__metadata__":{{"twinrun":"1"}},"{FILLER}":{{"dtype":"U8","shape":['
LEAST_HEADER_ROOM = 64 << 10
_OFFSETS_BOUND = 2 * 19 + 4  # two numbers of at most 19 digits, a comma, two brackets, a comma
_MOST_ROOM = 16 << 20
_FIXED = len(_PREAMBLE) + 128
_LINES_HELD = 1024
_HAND_ON_BYTES = 4 << 20
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class Segment:
    """An open segment; ``append`` copies out of the buffer it is given before it returns.

    Raises OSError where the disk refuses; the caller then calls ``abandon``.
    """

    def __init__(self, directory: Path, index: int, header_room: int = LEAST_HEADER_ROOM) -> None:
        stem = f"{index:06d}"
        self.index = index
        self.header_room = header_room
        self.end = header_room
        self._handed_on = header_room
        self.index_bytes = 0
        self._final = (directory / f"{stem}.safetensors", directory / f"{stem}.jsonl")
        self._part = tuple(path.with_name(f".{path.name}.part") for path in self._final)
        self._directory = directory
        self._entries: list[tuple[str, int, int]] = []
        self._fillers = 0
        self._header_bound = _FIXED
        # No buffered file objects: a forked child that collected one would write its buffer, too.
        self._lines: list[str] = []
        self._files: list[int] = []
        for path in self._part:
            self._files.append(os.open(path, _FLAGS, 0o644))

    @property
    def payload(self) -> int:
        """Bytes of payload and padding so far."""
        return self.end - self.header_room

    @property
    def header_full(self) -> bool:
        """Whether one more record might not find room in the header."""
        return self._header_bound + 4096 > self.header_room

    def write(self, data: memoryview) -> None:
        """Append bytes of a payload (its padding included) where the last ones ended."""
        _write_whole(self._files[0], data, self.end)
        self.end += len(data)
        if self.end - self._handed_on >= _HAND_ON_BYTES:
            _begin_writeback(self._files[0], self._handed_on, self.end - self._handed_on)
            self._handed_on = self.end

    def add(self, entry: Entry, offset: int, stats: Mapping[str, float | int] | None) -> None:
        """List a record whose payload begins at ``offset``, or that has none (-1)."""
        self._lines.append(entry.line(offset, stats))
        if len(self._lines) > _LINES_HELD:
            self._write_lines()
        if offset >= 0:
            heading = entry.heading
            after = offset + heading.nbytes
            self._list(f'"{entry.number}":{heading.entry}', offset, after)
            if after % ALIGNMENT:
                self._pad(after)

    def _write_lines(self) -> None:
        text = memoryview("".join(self._lines).encode())
        self._lines.clear()
        _write_whole(self._files[1], text, self.index_bytes)
        self.index_bytes += len(text)

    def _pad(self, after: int) -> None:
        left = -after % ALIGNMENT
        prefix = f'"{FILLER}.{self._fillers}":{{"dtype":"U8","shape":[{left}],"data_offsets":['
        self._fillers += 1
        self._list(prefix, after, after + left)

    def _list(self, prefix: str, begin: int, end: int) -> None:
        self._entries.append((prefix, begin, end))
        self._header_bound += len(prefix) + _OFFSETS_BOUND

    def header(self) -> bytes:
        """The length and the header text, padded with spaces to its stated length."""
        base = -(-self._header_bound // ALIGNMENT) * ALIGNMENT
        filler = self.header_room - base
        rows = [f'{_PREAMBLE}{filler}],"data_offsets":[0,{filler}]}}']
        rows += [f"{prefix}{begin - base},{end - base}]}}" for prefix, begin, end in self._entries]
        text = (",".join(rows) + "}").encode()
        return (base - 8).to_bytes(8, "little") + text.ljust(base - 8)

    def seal(self) -> None:
        """Write the header and commit both files."""
        _write_whole(self._files[0], memoryview(self.header()), 0)
        # A file without payload still reaches the end that its header names.
        os.ftruncate(self._files[0], self.end)
        self._write_lines()
        for file in self._files:
            os.fsync(file)
        self.forget()
        for part, final in zip(self._part, self._final, strict=True):
            part.rename(final)
        sync_directory(self._directory)

    def forget(self) -> None:
        """Close the files as they are; in a forked child this leaves the parent's alone."""
        while self._files:
            os.close(self._files.pop())

    def abandon(self) -> None:
        """Remove what was not sealed, to give the room on the disk back."""
        self.forget()
        for path in self._part:
            path.unlink(missing_ok=True)

    def next_room(self) -> int:
        """Header room for the segment after this one: twice where this one ran out of it."""
        if self.header_full:
            return min(self.header_room * 2, _MOST_ROOM)
        generous = self._header_bound * 8 < self.header_room
        return max(self.header_room // 2, LEAST_HEADER_ROOM) if generous else self.header_room


def _write_whole(file: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(file, data, at)
        at += written
        data = data[written:]


def _begin_writeback(file: int, start: int, size: int) -> None:
    """Let the disk begin now, so that the seal's fsync finds little left; a hint, no promise."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(file, start, size, 2)


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None  # not on this system
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return cast("Callable[[int, int, int, int], int]", function)


_SYNC_FILE_RANGE = _sync_file_range()
