"""A capture that lives in memory: what a comparison needs, without a file."""

from __future__ import annotations

from typing import Any

import torch

from twinrun.recorder.record import ProcessInfo, Record, RootInfo, RunInfo


class MemoryRun:
    """Add tensors in the order in which a program would have observed them."""

    def __init__(self, path: str = "runs/a", roots: tuple[RootInfo, ...] | None = None) -> None:
        self.path = path
        self.records: list[Record] = []
        self.complete = True
        self._roots = roots if roots is not None else (RootInfo("", "Model"),)
        self._tensors: dict[tuple[int, int], torch.Tensor] = {}
        self._seen: dict[tuple[int, int, str, bool], int] = {}

    def add(self, name: str, tensor: torch.Tensor, *, rank: int = 0, **given: Any) -> Record:
        """One record; fields that are not given follow from the name and the tensor."""
        process = given.pop("process", rank)
        number = sum(record.process == process for record in self.records)
        module, _, port = name.partition(":")
        role = {"input": "input", "output": "output", "parameter": "parameter"}.get(
            port.split(".")[0], "dump"
        )
        step, recompute = given.get("step", 0), given.get("recompute", False)
        key = (process, step, name, recompute)
        occurrence = self._seen[key] = self._seen.get(key, -1) + 1
        values: dict[str, Any] = {
            "process": process, "number": number, "rank": rank, "step": step, "name": name,
            "occurrence": occurrence, "kind": "gradient" if name.endswith("grad") else "activation",
            "role": role, "module": module if role != "dump" else "",
            "module_class": "Linear" if role != "dump" else "", "root": 0, "tags": {}, "dims": None,
            "dims_source": "", "mesh": {}, "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": tuple(tensor.shape), "device": "cpu",
            "nbytes": tensor.numel() * tensor.element_size(), "stats": None, "has_payload": True,
            "sources": (), "parents": (), "reduction": 0, "recompute": recompute,
            "begun": 10 * number, "order": 10 * number + 5,
        }  # fmt: skip
        record = Record(**{**values, **given})
        self.records.append(record)
        self._tensors[process, number] = tensor
        return record

    @property
    def run(self) -> RunInfo:
        """Plausible facts."""
        return RunInfo(
            format=1, twinrun="0.1.0", origin="run", command=("python", "program.py"), options={},
            mesh="", created="2026-01-02T03:04:05Z", exit_code=0, complete=self.complete,
            problems=() if self.complete else ("killed",),
        )  # fmt: skip

    @property
    def processes(self) -> tuple[ProcessInfo, ...]:
        """One for each process that a record names."""
        ranks = {record.process: record for record in self.records}
        return tuple(
            ProcessInfo(
                directory=f"rank{at}", pid=100 + at, rank=ranks[at].rank, world_size=len(ranks),
                host="node", argv=("program.py",), python="3.11", torch="2.13", roots=self._roots,
                mesh=ranks[at].mesh, notes=(), problems=(), reports={},
                records=sum(r.process == at for r in self.records), bytes=0, seconds=0.0, ended=True,
            )
            for at in sorted(ranks)
        )  # fmt: skip

    def tensor(self, record: Record) -> torch.Tensor:
        """The tensor as it was added."""
        return self._tensors[record.process, record.number]

    def release(self, record: Record) -> None:
        """Nothing is mapped."""

    def close(self) -> None:
        """Nothing is open."""
