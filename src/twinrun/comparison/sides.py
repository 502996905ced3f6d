"""One run as the result describes it, and what its reader must be told."""

from __future__ import annotations

from collections.abc import Iterator

from twinrun.comparison.points import Points, mesh_text
from twinrun.comparison.result import Side
from twinrun.recorder.record import Record


def side_of(points: Points) -> Side:
    """The run behind these points, after steps were skipped."""
    view = points.view
    run = view.run
    meshes = [process.mesh for process in view.processes] + [r.mesh for r in _first_of_each(points)]
    sizes = {axis: size for mesh in meshes for axis, (_, size) in mesh.items() if size > 1}
    versions = {"twinrun": run.twinrun} if run.twinrun else {}
    for process in view.processes:
        versions.setdefault("torch", process.torch)
        versions.setdefault("python", process.python)
    return Side(
        path=str(view.path),
        ranks=len({process.rank for process in view.processes if process.records}),
        processes=len(view.processes),
        steps=points.steps,
        records=len(view.records),
        nbytes=points.nbytes,
        mesh=mesh_text(sizes) or run.mesh,
        command=" ".join(run.command),
        versions=versions,
        complete=run.complete,
        problems=tuple(run.problems),
    )


def _first_of_each(points: Points) -> Iterator[Record]:
    """One record a process: where the mesh is known from the model, not from the process."""
    seen: set[int] = set()
    for record in points.view.records:
        if record.mesh and record.process not in seen:
            seen.add(record.process)
            yield record


def problems_of_side(name: str, points: Points) -> Iterator[str]:
    """Sentences about one run."""
    run = points.view.run
    if not run.complete:
        yield f"the {name} is incomplete: {'; '.join(run.problems) or 'its run did not end well'}"
    if points.skipped:
        yield f"{points.skipped} records of the {name} lie in skipped steps"
    if points.twice:
        ranks = ", ".join(map(str, points.twice))
        yield f"several processes of the {name} claim rank {ranks}: they are kept apart as jobs"
    silent = [process.pid for process in points.view.processes if not process.records]
    if silent and len(silent) < len(points.view.processes):
        yield f"{len(silent)} of {len(points.view.processes)} processes of the {name} recorded nothing"
