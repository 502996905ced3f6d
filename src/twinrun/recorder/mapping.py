"""Payloads as tensors over mappings of the segments' files."""

from __future__ import annotations

import math
import mmap
import os
from collections import OrderedDict
from pathlib import Path

import torch

from twinrun.errors import CaptureError
from twinrun.recorder.dtypes import BY_NAME
from twinrun.recorder.record import Record
from twinrun.recorder.untrusted import open_regular

_MOST_OPEN = 64
_PAGE = mmap.PAGESIZE


class Mappings:
    """Maps segments when a tensor of theirs is first asked for, and keeps the last few mapped.

    The mappings are private: a tensor that is written to changes in this process only.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, mmap.mmap] = OrderedDict()

    def tensor(self, path: Path, record: Record) -> torch.Tensor:
        """The record's values, CPU; CaptureError where the file no longer holds them."""
        dtype = BY_NAME[record.dtype]
        if not math.prod(record.shape):
            return torch.empty(0, dtype=torch.uint8).view(dtype).view(record.shape)
        memory = self._map(path)
        if record.offset + record.nbytes > len(memory):
            raise CaptureError(
                f"{path} is cut: record {record.number} ({record.name!r}) lies outside it",
                seen=f"{len(memory)} bytes",
                expected=f"at least {record.offset + record.nbytes}",
                do="copy the segment again, or leave this record out",
            )
        flat = torch.frombuffer(
            memory, dtype=torch.uint8, count=record.nbytes, offset=record.offset
        )
        return flat.view(dtype).view(record.shape)

    def release(self, path: Path, record: Record) -> None:
        """Give the record's pages back to the system; they come back when read again."""
        memory = self._open.get(path)
        if memory is None or not record.nbytes:
            return
        start = record.offset // _PAGE * _PAGE
        end = min(record.offset + record.nbytes, len(memory))
        if end > start:
            memory.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        """Forget the mappings; tensors that are still in use keep theirs."""
        self._open.clear()

    def _map(self, path: Path) -> mmap.mmap:
        memory = self._open.get(path)
        if memory is not None:
            self._open.move_to_end(path)
            return memory
        handle = open_regular(path)
        try:
            memory = mmap.mmap(handle, 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise CaptureError(f"{path} cannot be mapped: {error}") from error
        finally:
            os.close(handle)
        self._open[path] = memory
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return memory
