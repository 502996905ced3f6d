"""A few processes that form one process group on gloo, for tests.

Each rank runs a module-level function of the test's own file; what it returns comes back in rank order,
and a rank that raises or hangs fails the test with that rank's traceback.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch", "torch.distributed", "twinrun.collectives.all_reduce"])


def run_ranks(
    size: int,
    body: Callable[..., Any],
    *args: Any,
    environ: Mapping[str, str] | None = None,
    timeout_s: float = 120.0,
) -> list[Any]:
    """``body(rank, size, *args)`` on ``size`` ranks; their results, or the first rank's traceback.

    ``environ`` is added on every rank; a value of the form ``{rank}`` is filled with the rank.
    """
    with TemporaryDirectory() as folder:
        started = []
        for rank in range(size):
            ours, theirs = _SERVER.Pipe(duplex=False)
            job = (rank, size, str(Path(folder) / "store"), dict(environ or {}), body, args)
            process = _SERVER.Process(target=_rank, args=(theirs, *job), daemon=True)
            process.start()
            theirs.close()
            started.append((process, ours))
        try:
            return _collect([pipe for _, pipe in started], monotonic() + timeout_s)
        finally:
            for process, _ in started:
                process.kill()
                process.join()


def _collect(pipes: list[Connection], deadline: float) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(pipes):
        pending = [pipe for rank, pipe in enumerate(pipes) if rank not in results]
        ready = wait(pending, max(0.0, deadline - monotonic()))
        if not ready:
            missing = [rank for rank in range(len(pipes)) if rank not in results]
            raise AssertionError(f"ranks {missing} did not end in time; done: {sorted(results)}")
        for pipe in ready:
            rank = pipes.index(pipe)  # type: ignore[arg-type]
            try:
                kind, value = pipe.recv()  # type: ignore[union-attr]
            except EOFError:
                kind, value = "error", "it ended without a word"
            if kind == "error":
                raise AssertionError(f"rank {rank} failed:\n{value}")
            results[rank] = value
    return [results[rank] for rank in range(len(pipes))]


def _rank(
    pipe: Connection,
    rank: int,
    size: int,
    store: str,
    environ: dict[str, str],
    body: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    for name, value in environ.items():
        os.environ[name] = value.replace("{rank}", str(rank))
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        pipe.send(("result", body(rank, size, *args)))
    except BaseException:
        pipe.send(("error", traceback.format_exc()))
