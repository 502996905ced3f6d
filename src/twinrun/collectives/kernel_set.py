"""The kernels of one workspace, started with little ado.

A kernel here waits for its peers while it holds a part of the GPU. Two groups on two streams could
keep each other out for good if one's kernel filled the GPU while it waits: rank 0 would run only
the first group's, rank 1 only the second's. So grids are cut until as many kernels as may run at
once (``TWINRUN_ALL_REDUCE_STREAMS``) fit, and one more where the next kernel of a stream is let in
early and holds its part without running.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from twinrun.collectives.workspace import Workspace
from twinrun.kernels import arguments as layout
from twinrun.kernels import loaded
from twinrun.kernels.driver import Launch
from twinrun.kernels.variant import DTYPES, ORDERS, Variant

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
Key = tuple[str, str, str, bool, int, int]


@dataclass(frozen=True, slots=True)
class Sharing:
    """How much of a GPU one kernel may take; equal on all ranks of a group."""

    multiprocessors: int
    streams: int

    def grid(self, world: int, blocks: int, threads: int) -> tuple[int, bool]:
        """The blocks that a launch gets, and whether the next kernel may come in early."""
        resident = layout.resident_blocks(world, self.multiprocessors, threads)
        blocks = max(1, min(blocks, resident // self.streams, layout.MAX_BLOCKS))
        return blocks, blocks <= resident // (self.streams + 1)


@dataclass(frozen=True, slots=True)
class Watch:
    """Checked mode: four words of pinned host memory for the report, and how long to wait."""

    report: torch.Tensor
    timeout_s: float


class KernelSet:
    """Starts kernels on the current stream of ``device`` for rank ``rank`` of a group."""

    def __init__(
        self,
        workspace: Workspace,
        rank: int,
        device: torch.device,
        sharing: Sharing,
        watch: Watch | None = None,
    ) -> None:
        self.world = len(workspace.addresses)
        self.device = device
        self._sharing = sharing
        self._watch = watch
        self._dependent = torch.cuda.get_device_capability(device) >= (9, 0)
        # What torch's own compiled programs call: a tenth of current_stream().cuda_stream.
        self._stream = torch._C._cuda_getCurrentRawStream
        self._launches: dict[Key, tuple[Launch, bool]] = {}
        self._arguments = layout.Arguments(rank=rank, slot_bytes=workspace.slot_bytes)
        for peer, address in enumerate(workspace.addresses):
            self._arguments.workspace[peer] = address
        if watch is not None:
            self._arguments.report = watch.report.data_ptr()
            self._arguments.timeout_ns = int(watch.timeout_s * 1e9)

    def start(
        self,
        kernel: str,
        dtype: str,
        order: str,
        blocks: int,
        threads: int,
        source: int,
        target: int,
        elements: int,
        row: int = 0,
        call: int = 0,
    ) -> None:
        """Enqueue one launch: ``elements`` of ``dtype`` from address ``source`` to ``target``.

        ``row`` is the address of a row of peers' addresses; other ranks' tensors may be unaligned
        where this rank's are not, so a kernel with a row never takes the short way.
        """
        whole = not row and (source | target | elements * _BYTES[dtype]) % layout.VECTOR_BYTES == 0
        key = (kernel, dtype, order, whole, blocks, threads)
        found = self._launches.get(key) or self._prepare(key)
        told = self._arguments
        told.input = source
        told.output = target
        told.row = row
        told.elements = elements
        told.flags = found[1]
        told.call = call
        found[0](self._stream(self.device.index))

    def load(self, kernels: Sequence[str], pulled: Sequence[str] = ()) -> None:
        """Compile and load every variant of ``kernels``, of ``pulled`` those that take rows."""
        rank = self._arguments.rank
        both = [(kernel, whole) for kernel in kernels for whole in (True, False)]
        variants = [
            self._variant(kernel, dtype, order, whole)
            for kernel, whole in (*both, *((kernel, False) for kernel in pulled))
            for dtype in DTYPES
            for order in ORDERS
        ]
        loaded.load(self.device, variants, len(variants) * rank // self.world)

    def _prepare(self, key: Key) -> tuple[Launch, bool]:
        kernel, dtype, order, whole, blocks, threads = key
        function = loaded.function(self.device, self._variant(kernel, dtype, order, whole))
        blocks, early = self._sharing.grid(self.world, blocks, threads)
        launch = Launch(function, self._arguments, blocks, threads, self._dependent)
        self._launches[key] = launch, early
        return launch, early

    def _variant(self, kernel: str, dtype: str, order: str, whole: bool) -> Variant:
        return Variant(kernel, self.world, dtype, order, whole, self.checked)

    @property
    def checked(self) -> bool:
        """Whether a rank that does not arrive is reported."""
        return self._watch is not None

    @property
    def lost(self) -> tuple[int, int, int] | None:
        """In checked mode, what a kernel reported: rank that was missing, stage, call."""
        if self._watch is None or not int(self._watch.report[0]):
            return None
        _, rank, stage, call = self._watch.report.tolist()
        return rank, stage, call
