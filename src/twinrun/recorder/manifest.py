"""``run.json`` and ``process.json`` as checked values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from twinrun.errors import CaptureError, LayoutError
from twinrun.layout.mesh import Mesh, parse_axes
from twinrun.recorder.record import ProcessInfo, RootInfo, RunInfo
from twinrun.recorder.rundir import FORMAT, RUN
from twinrun.recorder.untrusted import as_int, as_text, parse_object, read_bytes

_MOST_ITEMS = 100_000


def read_manifest(directory: Path) -> tuple[RunInfo, bool]:
    """The run, and whether ``finish_run`` was called. CaptureError where it cannot be read."""
    path = directory / RUN
    if not directory.is_dir():
        raise CaptureError(
            f"{directory} does not exist", do="twinrun run --out DIR makes a capture"
        )
    if not path.exists():
        raise CaptureError(
            f"{directory} is no capture: it holds no {RUN}",
            do="name the directory that was given to twinrun run --out or tr.capture",
        )
    held = parse_object(read_bytes(path), str(path))
    _check_format(held, path)
    try:
        return _run(held), as_text(held["state"]) == "ended"
    except (KeyError, ValueError) as error:
        raise _wrong(path, error) from None


def _check_format(held: Mapping[str, Any], path: Path) -> None:
    version = held.get("format")
    if type(version) is not int or version < 1:
        raise CaptureError(f"{path} names no format version", seen=repr(version)[:60])
    if version > FORMAT:
        raise CaptureError(
            f"{path} is of format {version}; this Twinrun reads up to format {FORMAT}",
            seen=f"written by Twinrun {str(held.get('twinrun'))[:40]}",
            do="read it with a Twinrun at least as new as the one that wrote it",
        )


def _run(held: Mapping[str, Any]) -> RunInfo:
    code = held.get("exit_code")
    mesh = as_text(held["mesh"])
    try:
        parse_axes(mesh)
    except LayoutError as error:
        raise ValueError(str(error)) from None
    return RunInfo(
        format=held["format"],
        twinrun=as_text(held["twinrun"]),
        origin=as_text(held["origin"]),
        command=_texts(held["command"]),
        options=_object(held["options"]),
        mesh=mesh,
        created=as_text(held["created"]),
        exit_code=None if code is None else as_int(code, -(1 << 31)),
        complete=held["complete"] is True,
        problems=_texts(held["problems"]),
    )


def read_process(directory: Path, mesh: str) -> tuple[ProcessInfo, list[str]]:
    """A process by its directory, nothing counted yet, and what is wrong with its place.

    mesh: the run's rank grid, for a process that names no coordinates of its own.
    """
    path = directory / "process.json"
    held = parse_object(read_bytes(path), str(path))
    _check_format(held, path)
    try:
        process = _process(held, directory.name)
    except (KeyError, ValueError) as error:
        raise _wrong(path, error) from None
    if process.mesh or not mesh:
        return process, []
    try:
        place = Mesh.at(process.rank, parse_axes(mesh))
    except LayoutError as error:
        return process, [f"rank {process.rank} has no place in --mesh {mesh}: {error.summary}"]
    return replace(process, mesh=dict(place)), []


def _process(held: Mapping[str, Any], directory: str) -> ProcessInfo:
    seconds = held["seconds"]
    if type(seconds) not in (int, float):
        raise ValueError("seconds is no number")
    return ProcessInfo(
        directory=directory,
        pid=as_int(held["pid"]),
        rank=as_int(held["rank"], 0, 1 << 31),
        world_size=as_int(held["world_size"], 1, 1 << 31),
        host=as_text(held["host"]),
        argv=_texts(held["argv"]),
        python=as_text(held["python"]),
        torch=as_text(held["torch"]),
        roots=tuple(_root(_object(row)) for row in _list(held["roots"])),
        mesh={as_text(axis): _place(place) for axis, place in _object(held["mesh"]).items()},
        notes=_texts(held["notes"]),
        problems=_texts(held["problems"]),
        reports=_object(held["reports"]),
        records=0,
        bytes=0,
        seconds=float(seconds),
        ended=held["ended"] is True,
    )


def _root(row: Mapping[str, Any]) -> RootInfo:
    facts = {key: value for key, value in row.items() if key not in ("label", "class")}
    return RootInfo(as_text(row["label"]), as_text(row["class"]), facts)


def _place(value: object) -> tuple[int, int]:
    pair = _list(value)
    if len(pair) != 2:
        raise ValueError("a mesh coordinate is [coordinate, size]")
    size = as_int(pair[1], 1)
    return as_int(pair[0], 0, size - 1), size


def _object(value: object) -> dict[str, Any]:
    if type(value) is not dict or len(value) > _MOST_ITEMS:
        raise ValueError("a JSON object was expected")
    return value


def _list(value: object) -> list[Any]:
    if type(value) is not list or len(value) > _MOST_ITEMS:
        raise ValueError("a JSON list was expected")
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(as_text(item) for item in _list(value))


def _wrong(path: Path, error: Exception) -> CaptureError:
    what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
    return CaptureError(f"{path}: {what}", do="the file was changed or damaged (docs/format.md)")
