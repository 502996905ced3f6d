"""The Recorder: everything that observes hands its tensors to the active one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch

from twinrun.recorder.budget import Budget
from twinrun.recorder.clock import Clock
from twinrun.recorder.device import capturing
from twinrun.recorder.filter import Facts, parse_filter
from twinrun.recorder.headings import Headings, mesh_key, probe
from twinrun.recorder.index import Entry, Heading
from twinrun.recorder.intercept import DumpInterceptor
from twinrun.recorder.options import Options
from twinrun.recorder.part import Mesh, Part
from twinrun.recorder.payload import Look, address_of, look
from twinrun.recorder.record import Tag
from twinrun.recorder.rundir import read_run
from twinrun.recorder.scope import current_tags
from twinrun.recorder.steps import Steps
from twinrun.recorder.switch import activate as activate
from twinrun.recorder.switch import active as active
from twinrun.recorder.switch import deactivate as deactivate


class Tracer(Protocol):
    """Knows which record a tensor came from; the call boundary provides one."""

    def trace(self, tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(sources, parents) of a tensor that is about to be recorded."""

    def observed(self, tensor: torch.Tensor, number: int) -> None:
        """The tensor became record ``number``."""


class Recorder(Part):
    """Records this process's tensors into a run directory that ``create_run`` made.

    Thread-safe. Once the object is made nothing is raised into the observed program: what goes
    wrong becomes a note or a problem in ``process.json``. CaptureError where ``path`` is no run
    directory. ``seconds`` is the time spent observing; a boundary may add its own.
    """

    def __init__(self, path: str | Path) -> None:
        directory = Path(path).absolute()
        options = Options.from_json(read_run(directory)["options"])
        self.tracer: Tracer | None = None
        self.dump_interceptors: list[DumpInterceptor] = []
        self._clock = Clock(Steps.parse(options.steps))
        self._filter = parse_filter(options.filter)
        super().__init__(directory, options)

    def _begin(self) -> None:
        super()._begin()
        self._number = 0
        self._headings = Headings(self._filter, self.note, self.problem)

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

    @property
    def marks(self) -> int:
        """``tr.step()`` calls so far."""
        return self._clock.mark

    @property
    def step(self) -> int:
        """The step that a dump belongs to now: ``marks``, or calls of the root entered last while it is 0."""
        return self._clock.step

    def tick(self) -> int:
        """The next value of the process's one order counter."""
        return self._clock.tick()

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
        for intercept in self.dump_interceptors:
            tags = {**tags, **intercept(name, tensor, dims, tags)}
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

    def _end(self) -> None:
        declined = self._headings.declined
        if declined and not self._number:
            self.note(
                f"the filter {self.options.filter!r} took none of {len(declined)} names, for "
                f"instance {next(iter(declined))!r}"
            )
        super()._end()
