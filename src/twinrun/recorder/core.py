"""The Recorder: everything that observes hands its tensors to the active one."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch

from twinrun.recorder.budget import Budget
from twinrun.recorder.clock import Clock
from twinrun.recorder.device import capturing
from twinrun.recorder.exits import close_at_exit, follow_forks, no_exit
from twinrun.recorder.filter import Facts, parse_filter
from twinrun.recorder.headings import Headings, mesh_key, probe
from twinrun.recorder.index import Entry, Heading
from twinrun.recorder.options import Options
from twinrun.recorder.outlet import Outlet
from twinrun.recorder.payload import Look, address_of, look
from twinrun.recorder.process import Process
from twinrun.recorder.record import Tag
from twinrun.recorder.rundir import read_run
from twinrun.recorder.scope import current_tags
from twinrun.recorder.steps import Steps
from twinrun.recorder.switch import activate as activate
from twinrun.recorder.switch import active as active
from twinrun.recorder.switch import deactivate as deactivate

Mesh = Mapping[str, tuple[int, int]]


class Tracer(Protocol):
    """Knows which record a tensor came from; the call boundary provides one."""

    def trace(self, tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(sources, parents) of a tensor that is about to be recorded."""

    def observed(self, tensor: torch.Tensor, number: int) -> None:
        """The tensor became record ``number``."""


class Recorder:
    """Records this process's tensors into a run directory that ``create_run`` made.

    Thread-safe. Once the object is made nothing is raised into the observed program: what goes
    wrong becomes a note or a problem in ``process.json``. CaptureError where ``path`` is no run
    directory. ``seconds`` is the time spent observing; a boundary may add its own.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.options = Options.from_json(read_run(self.path)["options"])
        self.tracer: Tracer | None = None
        self.seconds = 0.0
        self._clock = Clock(Steps.parse(self.options.steps))
        self._filter = parse_filter(self.options.filter)
        self._begin()
        follow_forks(self)

    def _begin(self) -> None:
        """State that a forked child makes anew."""
        self._lock = threading.RLock()
        self._busy = False
        self._open = True
        self._number = 0
        self._process = Process(self.path)
        self._headings = Headings(self._filter, self.note, self.problem)
        most = self.options.max_bytes
        self._budget = Budget(self.path, most) if most else None
        self._outlet: Outlet | None = None

    # What the program does

    def add_root(self, label: str, module_class: str, **facts: Tag) -> int:
        """Enter an outermost module into the root table; its index."""
        return self._process.add_root(label, module_class, facts)

    def begin_step(self, root: int) -> None:
        """The outermost module ``root`` was entered: its next call begins."""
        self._clock.enter(root)
        self._step_ended()

    def mark_step(self) -> None:
        """``tr.step()``: what comes now belongs to the next step."""
        clock = self._clock
        if clock.mark == 0 and clock.left_out:
            self.problem(
                f"{clock.left_out} tensors before the first tr.step() were left out by --steps "
                f"{self.options.steps}, which counts calls of the model until then; record every "
                "step instead, and choose steps when comparing"
            )
        clock.mark += 1
        self._step_ended()

    def _step_ended(self) -> None:
        self._process.look_up_rank()
        if self._outlet is not None:
            self._outlet.writer.step_ended()

    def tick(self) -> int:
        """The next value of the process's one order counter."""
        return self._clock.tick()

    def number_of_next(self) -> int:
        """The number that the next record will have."""
        return self._number

    def set_mesh(self, mesh: Mesh) -> None:
        """This process's coordinates, for records that name none."""
        self._process.set_mesh(mesh)

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
        clock = self._clock
        if not self._open or not clock.takes(clock.call_of(clock.root)):
            return False
        if not self._headings.filtering:
            return True
        merged = {**current_tags(), **(tags or {})}
        sort = probe(name, kind, role, module, module_class, recompute, merged)
        return self._headings.takes(sort, self._moment)

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

        One function of many lines: it runs for each tensor, and each call inside it would cost
        as much as half of what it does.
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
                clock = self._clock
                if root is None:
                    root = clock.root
                if call is None:
                    call = clock.call_of(root)
                if clock.choosing and not clock.takes(call):
                    return None
                seen: Look | None = None
                shape: tuple[int, ...]
                address = address_of(tensor)
                if address:
                    dtype, shape, device, refusal = tensor.dtype, tensor.shape, "cpu", ""
                else:
                    seen = look(tensor)
                    dtype, shape, device, refusal = (
                        seen.dtype,
                        seen.shape,
                        seen.device,
                        seen.refusal,
                    )
                    mesh = mesh or seen.mesh
                    if dims is None and seen.dims:
                        dims, dims_source = seen.dims, "dtensor"
                if dims and not dims_source:
                    dims_source = "annotation"
                held = current_tags()
                if tags:
                    held = {**held, **tags}
                heading = self._headings.of(
                    (
                        name, kind, role, module, module_class, root,
                        tuple(held.items()) if held else (),
                        tuple(map(type, held.values())) if held else (),
                        dims, dims_source, mesh_key(mesh) if mesh else (), reduction, recompute,
                        dtype, shape, device, refusal,
                    ),
                    self._moment,
                )  # fmt: skip
                if heading is None or (seen is not None and self._in_graph(seen)):
                    return None
                if self._budget is not None and not self._affords(self._budget, heading, refusal):
                    return None
                outlet = self._outlet or self._open_outlet()
                number, order = self._number, clock.tick()
                entry = Entry(
                    heading, number, call, clock.mark, order, order if begun is None else begun,
                    sources, parents,
                )  # fmt: skip
                if seen is None:
                    taken = outlet.put_memory(entry, address, heading.nbytes)
                else:
                    taken = outlet.put_tensor(entry, seen)
                if not taken:
                    return None
                self._number = number + 1
                return number
            except Exception as error:  # noqa: BLE001 - the observed program must not notice
                self.problem(f"{name!r} was not recorded: {type(error).__name__}: {error}")
                return None
            finally:
                self._busy = False
                self.seconds += perf_counter() - began

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
        call = self._clock.call_of(self._clock.root)
        return {"step": self._clock.step, "call": call, "rank": self._process.standing.rank}

    def _turned_away(self, name: str) -> None:
        if self._busy:
            self.problem(f"{name!r} was observed inside another observation and left out")

    def _no_tensor(self, name: str, value: object) -> None:
        self.note(f"{name!r} is a {type(value).__name__}, no tensor; it was left out")

    def _in_graph(self, seen: Look) -> bool:
        if seen.device.startswith("cuda") and capturing():
            self.note("tensors inside a CUDA graph's capture were left out")
            return True
        return False

    def _affords(self, budget: Budget, heading: Heading, refusal: str) -> bool:
        if budget.take(heading.nbytes if self._keeps_values and not refusal else 0):
            return True
        self.problem(f"recording stopped at --max-bytes {self.options.max_bytes}")
        self._open = False
        return False

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

    # The process's own files

    def announce(self) -> None:
        """Write process.json now: this process was reached, whatever it will record."""
        try:
            self._save()
            close_at_exit(self)
        except OSError as error:
            self.problem(f"process.json was not written: {error}")

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
        """The disk refused; told by one of the writer's threads."""
        self._open = False
        self.problem(why)
        with suppress(OSError):
            self._process.save(seconds=self.seconds)

    def flush(self) -> None:
        """Seal what was recorded so far and bring process.json up to date."""
        with self._lock:
            if self._outlet is not None and self._outlet.alive:
                self._outlet.writer.flush()
            if self._process.opened:
                self.announce()

    def close(self) -> None:
        """Seal the rest and end this process's part; a second call does nothing."""
        with self._lock:
            no_exit(self)
            self._open = False
            outlet, self._outlet = self._outlet, None
            if outlet is not None:
                outlet.close()
            if self._process.opened:
                self._end()

    def _end(self) -> None:
        declined = self._headings.declined
        if declined and not self._number:
            self.note(
                f"the filter {self.options.filter!r} took none of {len(declined)} names, for "
                f"instance {next(iter(declined))!r}"
            )
        # Where the disk refuses, process.json keeps saying "not ended", and a reader reports it.
        with suppress(OSError):
            if self._budget is not None:
                self._budget.close()
            self._process.save(seconds=self.seconds, ended=True)

    def start_afresh(self) -> None:
        """In a forked child: a directory, a buffer and a thread of its own, at its first record."""
        roots, outlet = self._process.roots, self._outlet
        if outlet is not None:
            outlet.forget()
        self._begin()
        self._process.roots = list(roots)
