"""kill -9 at random moments of a captured run: every sealed record reads back whole.

    python benchmarks/kill_rounds.py [--rounds 50] [--seed 0]

A child records tensors whose values follow from their number, in sizes that cross segments, steps
and the buffer's end. It is killed after a random time; what its capture then holds must be the
first records, all of them, bit for bit, and be called incomplete.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from twinrun.errors import CaptureError
from twinrun.recorder.reader import open_capture

CHILD = """
import sys, torch, twinrun as tr
sizes = [1, 256, 7, 1 << 20, 33, 1 << 16, 3]
with tr.capture(sys.argv[1], buffer_bytes=32 << 20):
    print("ready", flush=True)
    number = 0
    while True:
        size = sizes[number % len(sizes)]
        tr.dump(f"x{number % 5}", torch.arange(size, dtype=torch.int32) + number, index=number)
        number += 1
        if number % 11 == 0:
            tr.step()
"""


def one_round(directory: Path, after_s: float) -> tuple[int, int]:
    """Kill a run ``after_s`` seconds after its capture was opened: (records read, processes)."""
    run = directory / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(run)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(after_s)
    child.kill()
    child.wait()
    child.stdout.close()
    try:
        return _check(run)
    finally:
        shutil.rmtree(run, ignore_errors=True)


def _check(run: Path) -> tuple[int, int]:
    try:
        capture = open_capture(run)
    except CaptureError as error:
        raise AssertionError(f"a killed capture does not open: {error}") from error
    if capture.run.complete or not capture.problems:
        raise AssertionError("a killed capture calls itself complete")
    for expected, record in enumerate(capture.records):
        if record.number != expected or record.tags["index"] != expected:
            raise AssertionError(f"record {record.number} where {expected} was expected")
        values = capture.tensor(record)
        wanted = torch.arange(values.numel(), dtype=torch.int32) + expected
        if not torch.equal(values, wanted):
            raise AssertionError(f"record {expected} does not hold what was dumped")
        capture.release(record)
    return len(capture.records), len(capture.processes)


def main() -> None:
    """Run the rounds and print one line for each; an AssertionError is a broken promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=2.5, help="seconds")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    directory = Path(tempfile.mkdtemp())
    total = 0
    try:
        for index in range(asked.rounds):
            after = chance.uniform(0, asked.longest)
            records, _ = one_round(directory, after)
            total += records
            print(f"round {index + 1:>3}: killed after {after:4.2f} s, {records} records read back")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{asked.rounds} rounds, {total} records, all whole")


if __name__ == "__main__":
    main()
