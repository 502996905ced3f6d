"""Throw mutated captures at compare and show: only documented errors may come out.

    python benchmarks/fuzz_captures.py [--minutes 10] [--seed 0] [--keep DIR]

Each round copies a good capture, damages it in a few ways (bytes, cuts, lines, JSON values, files
missing, linked, swapped or doubled), and runs compare, show of the list and show of one tensor on
it. A TwinrunError is fine, so is a result. Any other exception, a crash, or a round of more than a
minute is a fault: its capture is kept and the command to see it again is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUND_S = 60

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 7, 63, 64, 128, 65536, 2**31, 2**63 - 1, 2**63, 10**30, 0.5, -0.0,
    1e308, "", "x", "../../etc/passwd", "a" * 5000, "\x00", "\u202e", "*", "[", "d0 d1[tp]", "1 t[tp]",
    "t[tp:partial] h", "# ep:replicated", "t h[", [], [[]], [0], [1, 2], [-1], [2**40], [4, 16],
    [16, 4], [0, 0], {}, {"tp": [0, 2]}, {"tp": [1, 2]}, {"tp": [5, 2]}, {"a": {"b": []}}, "float64",
    "bfloat16", "int8", "float4_e2m1fn_x2", "complex128", "gradient", "parameter", "activation",
]  # fmt: skip


def make_good(directory: Path) -> list[Path]:
    """Two captures of one model: one rank, and two ranks that share a sharded and a summed tensor."""
    import torch

    import twinrun as tr
    from twinrun.recorder.core import Recorder
    from twinrun.recorder.options import Options
    from twinrun.recorder.rundir import create_run, finish_run

    torch.manual_seed(0)
    whole = {name: torch.randn(4, 16) for name in ("embed", "attn", "mlp", "head")}
    with tr.capture(directory / "one") as recorder:
        for step in range(2):
            for layer, (name, value) in enumerate(whole.items()):
                tr.dump(name, value + step, dims="t h", layer=layer)
                tr.dump(f"{name}.ids", torch.arange(7) + step)
            recorder.flush()
            tr.step()
    create_run(directory / "two", command=["x"], options=Options(mesh="tp=2"), overwrite=True)
    for rank in range(2):
        os.environ["RANK"], os.environ["WORLD_SIZE"] = str(rank), "2"
        sharer = Recorder(directory / "two")
        for step in range(2):
            for layer, (name, value) in enumerate(whole.items()):
                if name == "mlp":
                    part, dims = (value + step) / 2, "t h [tp:partial]"
                else:
                    part, dims = (value + step)[:, rank * 8 : rank * 8 + 8], "t h[tp]"
                sharer.observe(name, part, dims=dims, tags={"layer": layer})
                sharer.observe(f"{name}.ids", torch.arange(7) + step)
            sharer.flush()
            sharer.mark_step()
        sharer.close()
    del os.environ["RANK"], os.environ["WORLD_SIZE"]
    finish_run(directory / "two", exit_code=0)
    return [directory / "one", directory / "two"]


def damage(run: Path, chance: random.Random) -> str:
    """Damage one file of the capture; what was done."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return "nothing left"
    path = chance.choice(files)
    ways: list[Callable[[Path, random.Random], None]] = [_flip, _cut, _swap, _remove, _replace]
    if path.suffix in (".json", ".jsonl"):
        ways = [_json] * 8 + [_lines] * 2 + ways
    elif chance.random() < 0.3:
        ways = [_header]
    way = chance.choice(ways)
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError):
        way(path, chance)
    return f"{way.__name__.strip('_')} {path.relative_to(run)}"


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    reach = len(data) if chance.random() < 0.5 else min(len(data), 600)
    for _ in range(chance.choice([1, 2, 8, 64])):
        data[chance.randrange(reach)] = chance.randrange(256)
    path.write_bytes(data)


def _cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size + 1))


def _header(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[:8] = chance.choice([0, 7, 2**20, 2**40, 2**64 - 1, 64]).to_bytes(8, "little")
    path.write_bytes(data)


def _swap(path: Path, chance: random.Random) -> None:
    run = next(up for up in path.parents if up.name == "damaged")
    others = [other for other in run.rglob(f"*{path.suffix}") if other.is_file()]
    other = chance.choice(others)
    here, there = path.read_bytes(), other.read_bytes()
    path.write_bytes(there)
    other.write_bytes(here)


def _remove(path: Path, chance: random.Random) -> None:
    chance.choice([path.unlink, lambda: shutil.rmtree(path.parent)])()


def _replace(path: Path, chance: random.Random) -> None:
    if path.parents[1].name == "processes" and chance.random() < 0.3:
        shutil.copytree(path.parent, path.parent.with_name(f"{chance.randrange(2**32):08x}"))
        return
    path.unlink()
    chance.choice([path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/etc/passwd")])()


def _lines(path: Path, chance: random.Random) -> None:
    lines = path.read_bytes().split(b"\n")
    at = chance.randrange(len(lines))
    chance.choice(
        [
            lambda: lines.insert(at, chance.choice(lines)),
            lambda: lines.pop(at),
            lambda: chance.shuffle(lines),
            lambda: lines.insert(at, b"[" * 50_000),
            lambda: lines.insert(at, b'{"number":' + b"9" * 6000 + b"}"),
        ]
    )()
    path.write_bytes(b"\n".join(lines))


def _json(path: Path, chance: random.Random) -> None:
    text = path.read_text()
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    at = chance.randrange(len(lines))
    held = json.loads(lines[at])
    for _ in range(chance.choice([1, 1, 2, 3])):
        _change(held, chance)
    lines[at] = json.dumps(held)
    path.write_text("\n".join(lines) + "\n")


def _change(held: dict[str, Any], chance: random.Random) -> None:
    key = chance.choice(list(held))
    while isinstance(held[key], dict) and held[key] and chance.random() < 0.5:
        held = held[key]
        key = chance.choice(list(held))
    kind = chance.random()
    if kind < 0.1:
        held.pop(key)
    elif kind < 0.15:
        held[str(chance.choice(HOSTILE))[:20]] = copy.deepcopy(chance.choice(HOSTILE))
    elif kind < 0.3 and type(held[key]) is int:
        held[key] += chance.choice([-64, -1, 1, 64])
    elif kind < 0.4 and key == "shape":
        chance.shuffle(held[key])
    else:
        held[key] = copy.deepcopy(chance.choice(HOSTILE))


def attempt(run: Path, good: list[Path], chance: random.Random) -> str:
    """Compare and show the damaged capture; what came out. Raises what is not documented."""
    from twinrun.comparison.compare import compare
    from twinrun.errors import TwinrunError

    other = chance.choice(good)
    pair = (run, other) if chance.random() < 0.5 else (other, run)
    try:
        outcome: str = compare(*pair).verdict
    except TwinrunError as error:
        str(error)
        outcome = type(error).__name__
    for command in (
        ["compare", *map(str, pair)],
        ["compare", "--json", *map(str, pair)],
        ["show", str(run)],
        ["show", str(run), chance.choice(["mlp", "embed.ids", "x", "m*"])],
    ):
        _command(command)
    return outcome


def _command(arguments: list[str]) -> None:
    """Run a command inside this process as ``twinrun`` would; exit codes 0 to 3 are documented."""
    from twinrun.cli.main import main

    sys.argv = ["twinrun", *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main()
        except SystemExit as leaving:
            code = leaving.code
    if code not in (None, 0, 1, 2, 3):
        raise AssertionError(f"{arguments} ended with {code}")


def one_round(seed: int, good: list[Path], directory: Path) -> str:
    """One damaged capture, made from ``seed`` alone, through everything."""
    chance = random.Random(seed)
    run = directory / "damaged"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(chance.choice(good), run)
    done = [damage(run, chance) for _ in range(chance.choice([1, 1, 1, 2, 4]))]
    (directory / "done.txt").write_text(f"seed {seed}: {'; '.join(done)}\n")
    return attempt(run, good, chance)


def work(directory: Path, first: int, until: float) -> None:
    """The worker: rounds from seed ``first`` on until the time is over; prints outcomes."""
    good = [directory / "one", directory / "two"]
    outcomes: dict[str, int] = {}
    seed = first
    while time.time() < until:
        signal.alarm(ROUND_S)
        try:
            outcome = one_round(seed, good, directory)
        except Exception:  # noqa: BLE001 - a fault of any kind is what this script looks for
            traceback.print_exc()
            print(f"FAULT at seed {seed}", flush=True)
            sys.exit(1)
        signal.alarm(0)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        seed += 1
        print(f"done {seed - first} {json.dumps(outcomes)}", flush=True)


def main() -> None:
    """Keep a worker busy for the time; a crash of it is a fault like any other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=0, help="stop after that many (0: by time)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.worker, asked.seed, asked.until)
        return
    directory = Path(tempfile.mkdtemp())
    make_good(directory)
    until, seed, faults, outcomes = time.time() + asked.minutes * 60, asked.seed, 0, {}
    while time.time() < until:
        seed, told, ended = _supervise(directory, seed, until, asked.rounds)
        for outcome, count in told.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
        if ended is None:
            break
        faults += 1
        kept = asked.keep / f"seed-{seed}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(directory / "damaged", kept, symlinks=True, dirs_exist_ok=True)
        print(
            f"fault {faults}: {(directory / 'done.txt').read_text().strip()}\n{ended}\nkept {kept}"
        )
        seed += 1
    shutil.rmtree(directory, ignore_errors=True)
    print(f"{sum(outcomes.values())} rounds, {faults} faults; outcomes {outcomes}")
    sys.exit(1 if faults else 0)


def _supervise(
    directory: Path, seed: int, until: float, rounds: int
) -> tuple[int, dict[str, int], str | None]:
    """Run one worker until it ends: (the seed it ended at, its outcomes, how it failed)."""
    worker = subprocess.Popen(
        [
            sys.executable, __file__, "--worker", str(directory), "--seed", str(seed),
            "--until", str(until),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    assert worker.stdout is not None
    done, outcomes, rest = 0, {}, []
    for line in worker.stdout:
        if line.startswith("done "):
            _, count, told = line.split(" ", 2)
            done, outcomes, rest = int(count), json.loads(told), []
            if rounds and done >= rounds:
                worker.terminate()
                worker.wait()
                return seed + done, outcomes, None
        else:
            rest.append(line)
    code = worker.wait()
    if code == 0:
        return seed + done, outcomes, None
    return seed + done, outcomes, f"worker ended with {code}\n" + "".join(rest[-40:])


if __name__ == "__main__":
    main()
