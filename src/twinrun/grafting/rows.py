"""A strided view as rows of memory, so that the kernel can scatter a ring's bytes over them."""

from __future__ import annotations

import torch

LEAST_BYTES = 2048
"""Shorter rows cost the kernel more than a pass through a small buffer in the cache costs us."""

MOST_ROWS = 1024
"""``IOV_MAX``: how many rows one call takes."""


class Rows:
    """The rows of a host view in row-major order, and how far they have been filled."""

    def __init__(self, table: torch.Tensor, row_bytes: int, keep: torch.Tensor) -> None:
        self._table = table
        self._keep = keep
        self.row_bytes = row_bytes
        self.count = table.shape[0]
        self.at = 0
        self.filled = 0
        """bytes of row ``at``"""

    @classmethod
    def of(cls, view: torch.Tensor) -> Rows | None:
        """None where the view is contiguous in pieces that are too short to be worth it."""
        size, dim, inner = view.element_size(), view.dim(), 1
        while dim and (view.stride(dim - 1) == inner or view.shape[dim - 1] == 1):
            dim -= 1
            inner *= view.shape[dim]
        if inner * size < LEAST_BYTES:
            return None
        starts = torch.tensor(view.data_ptr())
        for outer in range(dim):
            starts = starts.unsqueeze(-1) + torch.arange(view.shape[outer]) * (
                view.stride(outer) * size
            )
        table = torch.empty(starts.numel(), 2, dtype=torch.int64)
        table[:, 0] = starts.reshape(-1)
        table[:, 1] = inner * size
        return cls(table, inner * size, view)

    @property
    def done(self) -> bool:
        return self.at == self.count

    @property
    def address(self) -> int:
        """Where the next byte goes."""
        return int(self._table[self.at, 0]) + self.filled

    @property
    def iovec(self) -> int:
        """Address of the table of whole rows, as ``struct iovec``, from row ``at`` on."""
        return self._table.data_ptr() + 16 * self.at

    def whole(self, nbytes: int) -> int:
        """How many whole rows may be filled at once from ``nbytes``; 0 in the middle of a row."""
        if self.filled:
            return 0
        return min(nbytes // self.row_bytes, self.count - self.at, MOST_ROWS)

    def advance(self, nbytes: int) -> None:
        """So many bytes have come."""
        rows, self.filled = divmod(self.filled + nbytes, self.row_bytes)
        self.at += rows
