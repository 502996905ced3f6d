"""The Recorder: everything that observes hands its tensors to the active one."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch

from twinrun.recorder.budget import Budget
from twinrun.recorder.device import capturing
from twinrun.recorder.exits import close_at_exit, follow_forks, no_exit
from twinrun.recorder.filter import Facts, parse_filter
from twinrun.recorder.headings import Headings, Sort, facts_of, mesh_key
from twinrun.recorder.index import Entry, Heading
from twinrun.recorder.options import Options
from twinrun.recorder.outlet import Outlet
from twinrun.recorder.payload import Look, look
from twinrun.recorder.process import Process
from twinrun.recorder.record import Tag
from twinrun.recorder.rundir import read_run
from twinrun.recorder.scope import current_tags
from twinrun.recorder.steps import Steps
from twinrun.recorder.switch import activate as activate
from twinrun.recorder.switch import active as active
from twinrun.recorder.switch import deactivate as deactivate

NO_ROOT = -1
"""The root of a record that was made before any outermost module was entered."""

Mesh = Mapping[str, tuple[int, int]]


class Tracer(Protocol):
    """Knows which record a tensor came from; the call boundary provides one."""

    def trace(self, tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(sources, parents) of a tensor that is about to be recorded."""

    def observed(self, tensor: torch.Tensor, number: int) -> None:
        """The tensor became record ``number``."""


class Recorder:
    """Records this process's tensors into a run directory that ``create_run`` made.

    Thread-safe. ``observe`` and the rest raise nothing into the observed program once the object
    is made: what goes wrong becomes a note or a problem in ``process.json``. CaptureError where
    ``path`` is no run directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.options = Options.from_json(read_run(self.path)["options"])
        self.tracer: Tracer | None = None
        self.finishers: list[Callable[[], None]] = []
        self.seconds = 0.0
        self.mark = 0
        self._steps = Steps.parse(self.options.steps)
        self._filter = parse_filter(self.options.filter)
        self._calls: dict[int, int] = {}
        self._root = NO_ROOT
        self._ticks = itertools.count()
        self._declined_by_call = 0
        self._begin()
        follow_forks(self)

    def _begin(self) -> None:
        """State that a forked child makes anew."""
        self._lock = threading.RLock()
        self._busy = False
        self._open = True
        self._number = 0
        self._process = Process(self.path)
        self._headings = Headings(self._filter, self.note)
        self._budget = Budget(self.path, self.options.max_bytes)
        self._outlet: Outlet | None = None

    # What the program does

    def add_root(self, label: str, module_class: str, **facts: Tag) -> int:
        """Enter an outermost module into the root table; its index."""
        return self._process.add_root(label, module_class, facts)

    def begin_step(self, root: int) -> None:
        """The outermost module ``root`` was entered: its next call begins."""
        self._root = root
        self._calls[root] = self._calls.get(root, -1) + 1
        self._step_ended()

    def mark_step(self) -> None:
        """``tr.step()``: what comes now belongs to the next step."""
        self._finish()
        if self.mark == 0 and self._declined_by_call:
            self.problem(
                f"{self._declined_by_call} tensors before the first tr.step() were left out by "
                f"--steps {self.options.steps}, which counted calls of the model until then; "
                "call tr.step() after each iteration and choose steps when comparing"
            )
        self.mark += 1
        self._step_ended()

    def _finish(self) -> None:
        """Let observers record what is final only now: gradients that no optimizer took."""
        for finish in self.finishers:
            try:
                finish()
            except Exception as error:  # noqa: BLE001 - the observed program must not notice
                self.problem(f"the end of a step was not observed: {error!r}")

    def _step_ended(self) -> None:
        self._process.look_up_rank()
        if self._outlet is not None:
            self._outlet.writer.step_ended()

    def tick(self) -> int:
        """The next value of the process's one order counter."""
        return next(self._ticks)

    def number_of_next(self) -> int:
        """The number that the next record will have."""
        return self._number

    def wants(
        self,
        name: str,
        *,
        kind: str = "activation",
        role: str = "dump",
        module: str = "",
        module_class: str = "",
        recompute: bool = False,
        tags: Mapping[str, Tag] | None = None,
    ) -> bool:
        """Whether the filter and the steps would take such a record now."""
        if not self._open or (self.mark or self._calls.get(self._root, 0)) not in self._steps:
            return False
        if not self._headings.filtering:
            return True
        merged = {**current_tags(), **(tags or {})}
        sort = Sort(
            name, kind, role, module, module_class, self._root, tuple(merged.items()), (), None, "",
            (), 0, recompute, torch.uint8, (), "", "",
        )  # fmt: skip
        return self._headings.takes(facts_of(sort) | dict(self._moment()))

    # What is recorded

    def observe(
        self,
        name: str,
        tensor: object,
        *,
        kind: str = "activation",
        role: str = "dump",
        module: str = "",
        module_class: str = "",
        root: int | None = None,
        call: int | None = None,
        dims: str | None = None,
        dims_source: str = "",
        mesh: Mesh | None = None,
        tags: Mapping[str, Tag] | None = None,
        sources: tuple[int, ...] = (),
        parents: tuple[int, ...] = (),
        reduction: int = 0,
        recompute: bool = False,
        begun: int | None = None,
    ) -> int | None:
        """Record ``tensor`` as it is now; its number, or None where it was declined or refused.

        The values are copied (CPU) or their copy is ordered on the current stream (CUDA) before
        this returns; docs/architecture.md explains the other arguments.
        """
        began = perf_counter()
        with self._lock:
            if self._busy or not self._open:
                self._turned_away(name)
                return None
            self._busy = True
            try:
                if not isinstance(tensor, torch.Tensor):
                    self._no_tensor(name, tensor)
                    return None
                if root is None:
                    root = self._root
                if call is None:
                    call = self._calls.get(root, 0)
                if (step := self.mark or call) not in self._steps:
                    self._left_out(step)
                    return None
                seen = look(tensor)
                if dims is None and seen.dims:
                    dims, dims_source = seen.dims, "dtensor"
                elif dims and not dims_source:
                    dims_source = "annotation"
                scope = current_tags()
                tags = {**scope, **tags} if tags else scope
                sort = Sort(
                    name, kind, role, module, module_class, root, tuple(tags.items()),
                    tuple(map(type, tags.values())), dims, dims_source, mesh_key(mesh or seen.mesh),
                    reduction, recompute, seen.dtype, seen.shape, seen.device, seen.refusal,
                )  # fmt: skip
                heading = self._headings.of(sort, self._moment)
                if heading is None:
                    return None
                return self._record(seen, heading, call, sources, parents, begun)
            except Exception as error:  # noqa: BLE001 - the observed program must not notice
                self.problem(f"{name!r} was not recorded: {type(error).__name__}: {error}")
                return None
            finally:
                self._busy = False
                self.seconds += perf_counter() - began

    def _record(
        self,
        seen: Look,
        heading: Heading,
        call: int,
        sources: tuple[int, ...],
        parents: tuple[int, ...],
        begun: int | None,
    ) -> int | None:
        if seen.tensor.is_cuda and capturing():
            self.note("tensors inside a CUDA graph's capture are not recorded")
            return None
        outlet = self._outlet or self._open_outlet()
        payload_bytes = heading.nbytes if self._keeps_values and not seen.refusal else 0
        if not self._budget.take(payload_bytes):
            self._stop(f"recording stopped at max_bytes {self.options.max_bytes}")
            return None
        number, order = self._number, next(self._ticks)
        entry = Entry(
            heading, number, call, self.mark, order, order if begun is None else begun,
            sources, parents,
        )  # fmt: skip
        if not outlet.put(entry, seen, heading.dtype):
            return None
        self._number = number + 1
        return number

    def dump(self, name: str, tensor: object, dims: str | None, tags: Mapping[str, Tag]) -> None:
        """``tr.dump``: observe, taking part in the data flow where a boundary traces it."""
        tracer = self.tracer
        if tracer is None or not isinstance(tensor, torch.Tensor):
            self.observe(name, tensor, dims=dims, tags=tags)
            return
        sources, parents = tracer.trace(tensor)
        number = self.observe(name, tensor, dims=dims, tags=tags, sources=sources, parents=parents)
        if number is not None:
            tracer.observed(tensor, number)

    def _moment(self) -> Facts:
        call = self._calls.get(self._root, 0)
        return {"step": self.mark or call, "call": call, "rank": self._process.standing.rank}

    def _turned_away(self, name: str) -> None:
        if self._busy:
            self.problem(f"{name!r} was observed inside another observation and left out")

    def _no_tensor(self, name: str, value: object) -> None:
        self.note(f"{name!r} is a {type(value).__name__}, no tensor; it was left out")

    def _left_out(self, step: int) -> None:
        if self.mark == 0 and step:
            self._declined_by_call += 1

    def _stop(self, why: str) -> None:
        self.problem(why)
        self._open = False

    # What is told beside records

    def note(self, text: str) -> None:
        """Something worth knowing, once."""
        self._process.tell(self._process.notes, text)

    def problem(self, text: str) -> None:
        """Something that makes the capture incomplete, once."""
        self._process.tell(self._process.problems, text)

    def report(self, key: str, value: object) -> None:
        """Keep a JSON value in process.json under ``reports``."""
        self._process.report(key, value)

    def set_mesh(self, mesh: Mesh) -> None:
        """This process's coordinates, for records that name none."""
        self._process.set_mesh(mesh)

    # The process's own files

    def _open_outlet(self) -> Outlet:
        self._outlet = Outlet(
            self._process.directory,
            buffer_bytes=self.options.buffer_bytes,
            stats_only=not self._keeps_values,
            before_commit=self._save,
            failed=self._failed,
            note=self.note,
        )
        close_at_exit(self)
        return self._outlet

    @property
    def _keeps_values(self) -> bool:
        return self.options.mode == "values"

    def _save(self) -> None:
        self._process.look_up_rank()
        self._process.save(seconds=self.seconds)

    def _failed(self, why: str) -> None:
        """The disk refused; told by the writer's thread."""
        self.problem(why)
        with suppress(OSError):
            self._process.save(seconds=self.seconds)

    def announce(self) -> None:
        """Write process.json now: this process was reached, whatever it will record."""
        try:
            self._save()
            close_at_exit(self)
        except OSError as error:
            self.problem(f"process.json was not written: {error}")

    def flush(self) -> None:
        """Seal what was recorded so far and bring process.json up to date."""
        with self._lock:
            if self._outlet is not None and self._outlet.alive:
                self._outlet.writer.flush()
            if self._process.opened:
                self.announce()

    def close(self) -> None:
        """Seal the rest and end this process's part; a second call does nothing."""
        if self._open:
            self._finish()
        with self._lock:
            no_exit(self)
            self._open = False
            outlet, self._outlet = self._outlet, None
            if outlet is not None:
                outlet.close()
            if self._process.opened:
                self._end()

    def _end(self) -> None:
        try:
            self._budget.close()
            self._process.save(seconds=self.seconds, ended=True)
        except OSError:
            return  # process.json says "not ended", which is what a reader then reports

    def start_afresh(self) -> None:
        """In a forked child: a directory, a buffer and a thread of its own, at its first record."""
        roots, outlet = self._process.roots, self._outlet
        if outlet is not None:
            outlet.forget()
        self._begin()
        self._process.roots = list(roots)
