"""Two small jobs of real processes for the graft tests: each rank runs one function of the test's module."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from typing import Any

from twinrun.grafting.jobs import free_port

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "twinrun.grafting.exchange", "twinrun.recorder.filter"])


def _child(
    pipe: Any, body: Callable[..., Any], role: str, rank: int, world: int, options: dict[str, Any]
) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        answer = ("value", body(role, rank, world, **options))
    except BaseException:
        answer = ("error", f"{role} rank {rank}:\n{traceback.format_exc()}")
    pipe.send(answer)
    pipe.close()


class Jobs:
    """Ranks that are running; ``results`` waits for them all."""

    def __init__(
        self, body: Callable[..., Any], baseline: int, target: int, **options: Any
    ) -> None:
        self.ranks: dict[tuple[str, int], tuple[Any, Any]] = {}
        options.setdefault("address", f"127.0.0.1:{free_port()}")
        for role, world in (("baseline", baseline), ("target", target)):
            for rank in range(world):
                mine, theirs = _CONTEXT.Pipe(duplex=False)
                process = _CONTEXT.Process(
                    target=_child, args=(theirs, body, role, rank, world, options), daemon=True
                )
                process.start()
                theirs.close()
                self.ranks[role, rank] = (process, mine)

    def results(
        self, timeout_s: float = 90.0, killed: tuple[tuple[str, int], ...] = ()
    ) -> dict[tuple[str, int], Any]:
        """What each rank returned; AssertionError with every rank's traceback. ``killed`` ones give nothing."""
        until = time.monotonic() + timeout_s
        values, errors = {}, []
        for who, (process, pipe) in self.ranks.items():
            if who in killed:
                continue
            if not pipe.poll(max(0.0, until - time.monotonic())):
                errors.append(f"{who} hangs")
                continue
            try:
                kind, value = pipe.recv()
            except EOFError:
                kind, value = (
                    "error",
                    f"{who} ended without an answer (exit code {process.exitcode})",
                )
            if kind == "value":
                values[who] = value
            else:
                errors.append(value)
        for process, _ in self.ranks.values():
            process.join(5)
            if process.is_alive():
                process.kill()
        assert not errors, "\n\n".join(errors)
        return values


def run_jobs(
    body: Callable[..., Any], baseline: int = 1, target: int = 1, **options: Any
) -> dict[tuple[str, int], Any]:
    """Run ``body(role, rank, world, **options)`` in every rank of both jobs; what each returned."""
    return Jobs(body, baseline, target, **options).results()
