"""What a comparison costs beside a plain torch loop over the same mapped files, and its memory.

python -m benchmarks.compare [--pairs 200] [--rounds 5] [--work DIR] [--json FILE]

Captures of 4 MiB float32 tensors are written by the recorder. Three targets: equal, close (rounding
noise) and different everywhere. The reference maps both runs' segments with the official safetensors
reader and does five reductions a pair. Both are timed alternately in one process, with the files in the
page cache; medians. `different, plain` leaves out what only pairs above their floor get (max-relative,
ULP distribution, hints). Memory is the peak of RssAnon above the interpreter with torch loaded, in a
process of its own, for a tenth of the data and for all of it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open

import twinrun as tr

RESULTS = Path(__file__).parent / "results" / "compare.json"
SHAPE = (1024, 1024)
TARGETS = {"equal": 0.6, "close": 1.5, "different": 5.0, "different, plain": 2.5}
LIMIT_MIB = 300


def main() -> None:
    parser = argparse.ArgumentParser(description="compare beside a plain torch loop.")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", help="where captures go (a temporary directory)")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        print(json.dumps(memory(*given.memory_of)))
        return
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        lines = []
        for line in measure(Path(work), given.pairs, given.rounds):
            print("  ".join(f"{name} {value}" for name, value in line.items()), flush=True)
            lines.append(line)
    given.json.parent.mkdir(exist_ok=True)
    held = {
        "command": f"python -m benchmarks.compare --pairs {given.pairs} --rounds {given.rounds}",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "twinrun": tr.__version__},
        "lines": lines,
    }
    given.json.write_text(json.dumps(held, indent=1) + "\n")


def measure(work: Path, pairs: int, rounds: int) -> Iterator[dict[str, object]]:
    """Write all captures, then time and weigh."""
    scales = {"equal": 0.0, "close": 3e-8, "different": 1e-2}
    write(work / "baseline", pairs, 0.0)
    for name, scale in scales.items():
        write(work / name, pairs, scale)
        kinds = (name, "different, plain") if name == "different" else (name,)
        yield from (timed(work, kind, name, rounds) for kind in kinds)
        if name != "different":
            remove(work / name)
    for count in (max(1, pairs // 10), pairs):
        for side, scale in (("small-a", 0.0), ("small-b", 1e-2)):
            write(work / side, count, scale)
        yield weighed(work / "small-a", work / "small-b", count)


def write(out: Path, pairs: int, scale: float) -> None:
    """A capture of `pairs` tensors, the same for the same seed but for noise of `scale`."""
    with tr.capture(out, overwrite=True):
        for at in range(pairs):
            own = torch.Generator().manual_seed(at)
            value = torch.randn(SHAPE, generator=own)
            if scale:
                value *= 1 + scale * torch.randn(SHAPE, generator=own)
            tr.dump(f"layers.{at}", value)


def remove(out: Path) -> None:
    for file in sorted(out.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()


def timed(work: Path, kind: str, name: str, rounds: int) -> dict[str, object]:
    """Seconds of both, alternately; medians and their ratio."""
    sides = (work / "baseline", work / name)
    ours, plain = [], []
    for _ in range(rounds + 1):
        plain.append(clocked(lambda: reference(*sides)))
        with without_extras(kind.endswith("plain")):
            ours.append(clocked(lambda: tr.compare(*sides)))
    seconds, known = (statistics.median(values[1:]) for values in (ours, plain))
    ratio = statistics.median(a / b for a, b in zip(ours[1:], plain[1:], strict=True))
    return {
        "case": kind, "seconds": round(seconds, 3), "reference_seconds": round(known, 3),
        "ratio": round(ratio, 2), "at_most": TARGETS[kind], "held": ratio <= TARGETS[kind],
    }  # fmt: skip


@contextmanager
def without_extras(wanted: bool) -> Iterator[None]:
    """Leave out the dearer measures and the hints."""
    if not wanted:
        yield
        return
    with (
        mock.patch("twinrun.comparison.measure.detail", return_value=None),
        mock.patch("twinrun.comparison.compare.add_hints"),
    ):
        yield


def clocked(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def reference(one: Path, two: Path) -> float:
    """Five reductions a pair over mapped tensors."""
    total = 0.0
    with ExitStack() as opened:
        runs = [tensors(run, opened) for run in (one, two)]
        for key, held in runs[0].items():
            x, y = held.get_tensor(key), runs[1][key].get_tensor(key)
            away = x - y
            found = (away.abs().max(), away.norm(), x.norm(), y.norm(), (x * y).sum())
            total += sum(float(value) for value in found)
    return total


def tensors(run: Path, opened: ExitStack) -> dict[str, Any]:
    """Each record's key with the segment that holds it."""
    held = {}
    for file in segments(run):
        segment = opened.enter_context(safe_open(file, "pt"))
        held.update({key: segment for key in segment.keys() if key.isdecimal()})  # noqa: SIM118
    return held


def segments(run: Path) -> list[Path]:
    return sorted(run.rglob("*.safetensors"))


def weighed(one: Path, two: Path, pairs: int) -> dict[str, object]:
    """Peak RssAnon of a comparison in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.compare", "--memory-of", str(one), str(two)]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    mib = found["peak_mib"] - found["start_mib"]
    return {
        "case": f"memory, {pairs} different pairs", "mib_above_torch": round(mib, 1),
        "at_most": LIMIT_MIB, "held": mib <= LIMIT_MIB,
    }  # fmt: skip


def memory(one: str, two: str) -> dict[str, float]:
    start, peak, done = anonymous_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    tr.compare(one, two)
    done.set()
    watcher.join()
    return {"start_mib": start, "peak_mib": max(peak[0], anonymous_mib())}


def anonymous_mib() -> float:
    """RssAnon of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
