"""Made-up records for the tests of what is shown of a capture."""

from __future__ import annotations

from typing import Any

from twinrun.recorder.record import ProcessInfo, Record, RunInfo


def record(name: str = "model.layers.0.mlp:output", **rest: Any) -> Record:
    """One record with plausible values; any field can be given."""
    values: dict[str, Any] = {
        "process": 0, "number": 0, "rank": 0, "step": 0, "name": name, "occurrence": 0,
        "kind": "activation", "role": "output", "module": name.partition(":")[0],
        "module_class": "LlamaMLP", "root": 0, "tags": {}, "dims": None, "dims_source": "",
        "mesh": {}, "dtype": "float32", "shape": (2, 16, 128), "device": "cpu", "nbytes": 16384,
        "stats": None, "has_payload": True, "sources": (), "parents": (), "reduction": 0,
        "recompute": False, "begun": 0, "order": 0,
    }  # fmt: skip
    return Record(**{**values, **rest})


def process(rank: int = 0, **rest: Any) -> ProcessInfo:
    """One process of a run."""
    values: dict[str, Any] = {
        "directory": f"rank{rank}", "pid": 4000 + rank, "rank": rank, "world_size": 2, "host": "node-a",
        "argv": ("program.py", "run", "model"), "python": "3.11.9", "torch": "2.13.0", "roots": (),
        "mesh": {"tp": (rank, 2)}, "notes": (), "problems": (), "reports": {}, "records": 3,
        "bytes": 49152, "seconds": 0.0123, "ended": True,
    }  # fmt: skip
    return ProcessInfo(**{**values, **rest})


def run_info(**rest: Any) -> RunInfo:
    """The run that both processes belong to."""
    values: dict[str, Any] = {
        "format": 1, "twinrun": "0.1.0", "origin": "run", "command": ("torchrun", "program.py"),
        "options": {"taps": "modules", "filter": "", "gradients": False, "mode": "values"},
        "mesh": "tp=2", "created": "2026-01-02T03:04:05Z", "exit_code": 0, "complete": True, "problems": (),
    }  # fmt: skip
    return RunInfo(**{**values, **rest})
