"""What recording costs the caller: dump() off, 4 MiB, 1 KiB, and what reaches the disk.

Each figure stands beside a reference that was measured in the same loop of the same run.

    python benchmarks/capture.py [--directory DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import twinrun as tr

Result = dict[str, float | str]
MIB = 1 << 20


def empty(name, tensor, dims=None, **tags):  # type: ignore[no-untyped-def]
    """What dump() while off is measured against."""


def off() -> list[Result]:
    """dump() while nothing records, against an empty function with the same arguments."""
    x = torch.randn(16)
    calls = 20_000
    results = []
    for label, dims, tags in (
        ("no tags", None, {}),
        ("one tag", None, {"layer": 3}),
        ("dims and one tag", "t h", {"layer": 3}),
    ):
        ours, reference = [], []
        for _ in range(25):
            ours.append(_calls(tr.dump, x, dims, tags, calls))
            reference.append(_calls(empty, x, dims, tags, calls))
        results.append(_row(f"dump() off, {label}", "ns", min(ours), min(reference), 1.5))
    return results


def _calls(function: Callable[..., None], x: torch.Tensor, dims, tags, calls: int) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    if dims is not None:
        for _ in range(calls):
            function("attn_out", x, dims=dims, layer=3)
    elif tags:
        for _ in range(calls):
            function("attn_out", x, layer=3)
    else:
        for _ in range(calls):
            function("attn_out", x)
    return (time.perf_counter() - began) / calls * 1e9


def large(directory: Path) -> list[Result]:
    """4 MiB: the caller's time, against one copy into memory that was not touched lately.

    Both in one loop, taking turns at going first; every 16 calls the loop waits until the writer
    has caught up, so that the buffer is never full. torch's own copy_ follows in a loop of its own:
    its threads would go on spinning into whatever is timed next.
    """
    source = torch.randn(MIB)
    landing = torch.zeros(256 * MIB, dtype=torch.uint8)
    ours, reference = [], []
    with tr.capture(directory, overwrite=True) as recorder:
        for index in range(320):
            address = landing.data_ptr() + index % 64 * 4 * MIB
            calls = [
                (ours, lambda: tr.dump("x", source)),
                (
                    reference,
                    lambda address=address: ctypes.memmove(address, source.data_ptr(), 4 * MIB),
                ),
            ]
            for times, call in calls if index % 2 else calls[::-1]:
                times.append(_timed(call))
            if index % 16 == 15:
                recorder.flush()
    skip = 32
    row = _row(
        "dump() of 4 MiB, caller's time",
        "us",
        statistics.median(ours[skip:]) * 1e6,
        statistics.median(reference[skip:]) * 1e6,
        1.3,
    )
    row["reference"] = "memmove of 4 MiB into memory not recently touched"
    row["torch_copy_us"] = _torch_copies(source, landing)
    return [row]


def _torch_copies(source: torch.Tensor, landing: torch.Tensor) -> float:
    times = []
    for index in range(64):
        target = landing[index * 4 * MIB : (index + 1) * 4 * MIB].view(torch.float32)
        times.append(_timed(lambda target=target: target.copy_(source)))
    return statistics.median(times) * 1e6


def small(directory: Path) -> list[Result]:
    """1 KiB: microseconds a call, sustained over 10,000 calls, the writer at work all along."""
    source = torch.randn(256)
    times, reference = [], []
    for _ in range(5):
        with tr.capture(directory, overwrite=True):
            tr.dump("x", source)
            began = time.perf_counter()
            for _ in range(10_000):
                tr.dump("x", source)
            times.append((time.perf_counter() - began) / 10_000 * 1e6)
        reference.append(_raw_small(directory, source))
    row: Result = {
        "name": "dump() of 1 KiB, sustained over 10,000",
        "unit": "us",
        "ours": statistics.median(times),
        "reference_value": statistics.median(reference),
        "reference": "os.write of the same bytes to one file",
        "mark": "under 15 us",
        "met": "yes" if statistics.median(times) < 15 else "no",
    }
    return [row]


def _raw_small(directory: Path, source: torch.Tensor) -> float:
    data = bytes(source.nbytes)
    handle = os.open(directory / "raw", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    began = time.perf_counter()
    for _ in range(10_000):
        os.write(handle, data)
    taken = (time.perf_counter() - began) / 10_000 * 1e6
    os.close(handle)
    return taken


def throughput(directory: Path, total: int = 512 * MIB) -> list[Result]:
    """Bytes to the disk: from the first dump to the last seal, against appending the same bytes to
    one file and syncing it every 64 MiB. Interleaved, median of five."""
    source = torch.randn(MIB)
    data = memoryview(source.numpy()).cast("B")
    ours, raw = [], []
    for _ in range(5):
        ours.append(total / MIB / _captured(directory, source, total))
        raw.append(total / MIB / _appended(directory.with_name("raw"), data, total))
    row = _row(
        "disk throughput, 4 MiB tensors",
        "MiB/s",
        statistics.median(ours),
        statistics.median(raw),
        0.8,
        more_is_better=True,
    )
    row["reference"] = "os.write of the same bytes to one file, fsync each 64 MiB"
    return [row]


def _captured(directory: Path, source: torch.Tensor, total: int) -> float:
    shutil.rmtree(directory, ignore_errors=True)
    with tr.capture(directory) as recorder:
        began = time.perf_counter()
        for _ in range(total // source.nbytes):
            tr.dump("x", source)
        recorder.flush()
        taken = time.perf_counter() - began
    shutil.rmtree(directory)
    return taken


def _appended(path: Path, data: memoryview, total: int) -> float:
    began = time.perf_counter()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for index in range(total // len(data)):
        os.write(handle, data)
        if (index + 1) * len(data) % (64 * MIB) == 0:
            os.fsync(handle)
    os.fsync(handle)
    os.close(handle)
    taken = time.perf_counter() - began
    path.unlink()
    return taken


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _row(
    name: str,
    unit: str,
    ours: float,
    reference: float,
    mark: float,
    more_is_better: bool = False,
) -> Result:
    ratio = ours / reference
    met = ratio >= mark if more_is_better else ratio <= mark
    return {
        "name": name,
        "unit": unit,
        "ours": ours,
        "reference_value": reference,
        "ratio": ratio,
        "mark": f"{'at least' if more_is_better else 'at most'} {mark} x",
        "met": "yes" if met else "no",
    }


def main() -> None:
    """Run all four and print a table; --json writes the rows with machine and versions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, help="where to write (default: a temporary one)")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--only", choices=("off", "large", "small", "throughput"))
    asked = parser.parse_args()
    parent = Path(tempfile.mkdtemp(dir=asked.directory))
    try:
        parts: dict[str, Callable[[], list[Result]]] = {
            "off": off,
            "large": lambda: large(parent / "large"),
            "small": lambda: small(parent / "small"),
            "throughput": lambda: throughput(parent / "through"),
        }
        chosen = [asked.only] if asked.only else list(parts)
        rows = [row for part in chosen for row in parts[part]()]
    finally:
        shutil.rmtree(parent)
    for row in rows:
        ratio = f"{row['ratio']:.2f} x" if "ratio" in row else ""
        print(
            f"{row['name']:<42} {row['ours']:>9.1f} {row['unit']:<6} reference {row['reference_value']:>9.1f}"
            f"   {ratio:<8} {row['mark']:<14} {row['met']}"
        )
    if asked.json is not None:
        asked.json.write_text(json.dumps(_document(rows), indent=1) + "\n")


def _document(rows: list[Result]) -> dict[str, object]:
    return {
        "benchmark": "capture",
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "twinrun": tr.__version__,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
