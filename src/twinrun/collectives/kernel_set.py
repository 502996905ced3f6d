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

from twinrun.collectives import quick
from twinrun.collectives.algorithm import Start
from twinrun.collectives.workspace import Workspace
from twinrun.kernels import arguments as layout
from twinrun.kernels import loaded
from twinrun.kernels.driver import Launch
from twinrun.kernels.variant import DTYPES, ORDERS, Variant

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
Key = tuple[str, str, str, int, int]


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


class Ready:
    """One kernel for one dtype, order and launch shape.

    ``whole`` is its binary for aligned tensors of whole vectors, ``general`` the one for the rest.
    """

    __slots__ = ("_checked", "_current", "_general", "_index", "_whole", "_width")

    def __init__(
        self, general: Launch, whole: Launch, width: int, index: int, checked: bool
    ) -> None:
        self._general, self._whole = general, whole
        self._width, self._index, self._checked = width, index, checked
        self._current = quick.current_stream()

    def start(self, source: int, target: int, elements: int, row: int = 0, call: int = 0) -> None:
        """Enqueue one launch of ``elements`` from address ``source`` to ``target``.

        ``row`` is the address of a row of peers' addresses; other ranks' tensors may be unaligned
        where this rank's are not, so a kernel with a row never takes the short way.
        """
        if row or (source | target | elements * self._width) % layout.VECTOR_BYTES:
            launch = self._general
            launch.arguments.row = row
        else:
            launch = self._whole
        told = launch.arguments
        told.input = source
        told.output = target
        told.elements = elements
        if self._checked:
            told.call = call
        launch(self._current(self._index))

    def starter(self, elements: int) -> Start:
        """``start`` for tensors of so many ``elements``: all but their addresses is told once.

        Not for rows, nor for checked mode, where every call has a number.
        """
        tail = elements * self._width % layout.VECTOR_BYTES
        launch = (self._general if tail else self._whole).copy()
        told = launch.arguments
        told.elements, told.row = elements, 0
        unaligned = 0 if tail else layout.VECTOR_BYTES - 1
        # One Python function a call: each more costs a tenth of a microsecond.
        fire, carefully = launch.fire, self.start
        current, index = self._current, self._index

        def start(x: torch.Tensor, out: torch.Tensor) -> None:
            told.input = source = x.data_ptr()
            told.output = target = out.data_ptr()
            if (source | target) & unaligned:
                carefully(source, target, elements)
                return
            stream = current(index)
            if stream != launch.stream:
                launch.aim(stream)
            if fire():
                launch.elsewhere()

        return start


class KernelSet:
    """Makes kernels ready for the current stream of ``device`` and rank ``rank`` of a group."""

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
        self._ready: dict[Key, Ready] = {}
        self._pulled: tuple[str, ...] = ()
        self._rank = rank
        self._workspace = workspace

    def ready(self, kernel: str, dtype: str, order: str, blocks: int, threads: int) -> Ready:
        """This kernel for this dtype, order and launch shape, to be started over and over."""
        key = (kernel, dtype, order, blocks, threads)
        if key not in self._ready:
            general = self._launch(key, False)
            # A kernel that takes rows never takes the short way, and that binary is not loaded.
            whole = general if kernel in self._pulled else self._launch(key, True)
            self._ready[key] = Ready(general, whole, _BYTES[dtype], self.device.index, self.checked)
        return self._ready[key]

    def _launch(self, key: Key, whole: bool) -> Launch:
        kernel, dtype, order, blocks, threads = key
        function = loaded.function(self.device, self._variant(kernel, dtype, order, whole))
        blocks, early = self._sharing.grid(self.world, blocks, threads)
        return Launch(function, self._arguments(early), blocks, threads, self._dependent)

    def _arguments(self, early: bool) -> layout.Arguments:
        told = layout.Arguments(
            rank=self._rank, slot_bytes=self._workspace.slot_bytes, flags=early * layout.FLAG_EARLY
        )
        for peer, address in enumerate(self._workspace.addresses):
            told.workspace[peer] = address
        if self._watch is not None:
            told.report = self._watch.report.data_ptr()
            told.timeout_ns = int(self._watch.timeout_s * 1e9)
        return told

    def load(self, kernels: Sequence[str], pulled: Sequence[str] = ()) -> None:
        """Compile and load every variant of ``kernels``, and of ``pulled``, which take rows."""
        self._pulled = tuple(pulled)
        both = [(kernel, whole) for kernel in kernels for whole in (True, False)]
        variants = [
            self._variant(kernel, dtype, order, whole)
            for kernel, whole in (*both, *((kernel, False) for kernel in pulled))
            for dtype in DTYPES
            for order in ORDERS
        ]
        loaded.load(self.device, variants, len(variants) * self._rank // self.world)

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
