"""The kernels of one workspace, compiled when first asked for and started with little ado."""

from __future__ import annotations

import torch

from twinrun.collectives.workspace import Workspace
from twinrun.kernels import arguments as layout
from twinrun.kernels.binary import cubin
from twinrun.kernels.driver import Function, Launch
from twinrun.kernels.variant import Variant

# What torch's own compiled programs call: a tenth of torch.cuda.current_stream().cuda_stream.
_stream = torch._C._cuda_getCurrentRawStream
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
Shape = tuple[int, int, bool]  # blocks, threads, whether the next kernel may come in early


class KernelSet:
    """Starts kernels on the current stream of ``device`` for rank ``rank`` of a group.

    ``report`` is pinned host memory of four 32-bit words for checked mode, None without it.
    """

    def __init__(
        self,
        workspace: Workspace,
        rank: int,
        device: torch.device,
        report: torch.Tensor | None = None,
        timeout_s: float = 0.0,
        tuning: tuple[str, ...] = (),
    ) -> None:
        self.world = len(workspace.addresses)
        self.device = device
        self.checked = report is not None
        self._tuning = tuning
        major, minor = torch.cuda.get_device_capability(device)
        self.architecture = f"sm_{major}{minor}"
        self._dependent = major >= 9
        self._functions: dict[Variant, Function] = {}
        self._launches: dict[tuple[str, str, str, bool, Shape], Launch] = {}
        self._arguments = layout.Arguments(rank=rank, slot_bytes=workspace.slot_bytes)
        for peer, address in enumerate(workspace.addresses):
            self._arguments.workspace[peer] = address
        if report is not None:
            self._arguments.report = report.data_ptr()
            self._arguments.timeout_ns = int(timeout_s * 1e9)

    def start(
        self,
        kernel: str,
        dtype: str,
        order: str,
        shape: Shape,
        source: int,
        target: int,
        elements: int,
        row: int = 0,
        call: int = 0,
    ) -> None:
        """Enqueue one launch: ``elements`` of ``dtype`` from address ``source`` to ``target``."""
        whole = (source | target | elements * _BYTES[dtype]) % layout.VECTOR_BYTES == 0
        launch = self._launches.get((kernel, dtype, order, whole, shape))
        if launch is None:
            launch = self._prepare(kernel, dtype, order, whole, shape)
        told = self._arguments
        told.input = source
        told.output = target
        told.elements = elements
        told.row = row
        told.flags = shape[2]
        told.call = call
        launch(_stream(self.device.index))

    def _prepare(self, kernel: str, dtype: str, order: str, whole: bool, shape: Shape) -> Launch:
        variant = Variant(kernel, self.world, dtype, order, whole, self.checked, self._tuning)
        function = self._functions.get(variant)
        if function is None:
            binary = cubin(variant, self.architecture)
            with torch.cuda.device(self.device):
                function = self._functions[variant] = Function(binary, kernel)
        launch = Launch(function, self._arguments, shape[0], shape[1], self._dependent)
        self._launches[kernel, dtype, order, whole, shape] = launch
        return launch

    def close(self) -> None:
        """Unload the kernels; none of them may be running or belong to a graph still in use."""
        self._launches.clear()
        with torch.cuda.device(self.device):
            for function in self._functions.values():
                function.unload()
        self._functions.clear()
