"""What the user rules on single points: floors, K, and differences that are allowed, by glob."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twinrun.errors import UsageError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SettingsFile(BaseModel):
    """A settings file; later globs win over earlier ones."""

    model_config = ConfigDict(extra="forbid")

    floors: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    k: Positive | dict[str, Positive] = {}
    allow: list[str] = []


@dataclass(frozen=True, slots=True)
class Settings:
    """Globs over point names, in order; the last that matches wins."""

    floors: tuple[tuple[str, float], ...] = ()
    k: tuple[tuple[str, float], ...] = ()
    allow: tuple[str, ...] = ()

    def floor_of(self, name: str) -> float | None:
        """The relative L2 set for this point, if any."""
        return _last(self.floors, name)

    def k_of(self, name: str) -> float | None:
        """The K set for this point, if any."""
        return _last(self.k, name)

    def allows(self, name: str) -> bool:
        """Whether this point may differ."""
        return any(fnmatchcase(name, glob) for glob in self.allow)


def settle(
    file: str | Path | None = None,
    *,
    allow: Iterable[str] = (),
    floor: Mapping[str, float] | None = None,
    k: float | Mapping[str, float] | None = None,
) -> Settings:
    """Settings from a file and from arguments, which win. UsageError lists every problem at once."""
    said: dict[str, Any] = {"floors": dict(floor or {}), "allow": list(allow)}
    if k is not None:
        said["k"] = dict(k) if isinstance(k, Mapping) else k
    parts = [_validated(_read(file), str(file))] if file is not None else []
    parts.append(_validated(said, "the arguments"))
    return Settings(
        tuple(pair for part in parts for pair in part.floors.items()),
        tuple(pair for part in parts for pair in _pairs(part.k)),
        tuple(glob for part in parts for glob in part.allow),
    )


def read_yaml(path: str | Path, what: str) -> object:
    """The plain values of a YAML file; UsageError where it cannot be read or parsed."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the {what} {path}", seen=str(error)) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"the {what} {path} is no YAML", seen=str(error)) from error


def problems_of(error: ValidationError) -> str:
    """Every problem that pydantic found, one a line, each with its place."""
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc']) or 'file'}: {one['msg']}"
        for one in error.errors()
    )


def _read(path: str | Path) -> object:
    found = read_yaml(path, "settings file")
    return {} if found is None else found


def _validated(values: object, source: str) -> SettingsFile:
    try:
        return SettingsFile.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            f"{source} holds settings that cannot be used",
            seen=problems_of(error),
            expected="floors: {glob: relative L2}, k: number or {glob: number}, allow: [glob]",
            do="see docs/verdicts.md",
        ) from error


def _pairs(k: float | dict[str, float]) -> list[tuple[str, float]]:
    return list(k.items()) if isinstance(k, dict) else [("*", k)]


def _last(pairs: tuple[tuple[str, float], ...], name: str) -> float | None:
    return next((value for glob, value in reversed(pairs) if fnmatchcase(name, glob)), None)
