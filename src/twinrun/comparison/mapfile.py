"""The map file: which names of two runs belong together, and what lies between their tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from twinrun.comparison.pattern import Pattern
from twinrun.comparison.settings import problems_of, read_yaml
from twinrun.errors import MapError, UsageError
from twinrun.numerics.dtypes import format_of


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _pattern(value: object) -> object:
    return Pattern.parse(value) if isinstance(value, str) else value


_Pattern = Annotated[Pattern, BeforeValidator(_pattern)]
_Patterns = Annotated[list[_Pattern], BeforeValidator(_listed), Field(min_length=1, max_length=64)]


class Step(BaseModel):
    """One thing done to a tensor; exactly one field is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transpose: tuple[int, int] | None = None
    reshape: tuple[int, ...] | None = None
    cast: str | None = None
    scale: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Step:
        if len(self.model_fields_set) != 1:
            raise ValueError("a step is one of transpose, reshape, cast, scale")
        if self.cast is not None and format_of(self.cast).kind != "float":
            raise ValueError(f"cast: {self.cast!r} is no float dtype such as bfloat16")
        if self.reshape is not None and sum(size < 0 for size in self.reshape) > 1:
            raise ValueError("reshape: at most one size may be -1")
        return self


class Entry(BaseModel):
    """One rule. ``concat``: the dim on which the several tensors of one side follow each other."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    baseline: _Patterns
    target: _Patterns
    concat: int | None = None
    split: int | None = None
    baseline_steps: list[Step] = []
    target_steps: list[Step] = []

    @property
    def dim(self) -> int | None:
        """Where the single tensor is cut, or the several are joined: the same thing."""
        return self.concat if self.concat is not None else self.split

    @model_validator(mode="after")
    def _fits(self) -> Entry:
        many = max(len(self.baseline), len(self.target))
        if min(len(self.baseline), len(self.target)) > 1:
            raise ValueError("one side must be a single name")
        if (self.dim is None) != (many == 1):
            raise ValueError("several names need concat or split (a dim), a single name neither")
        if self.concat is not None and self.split is not None:
            raise ValueError("give concat or split, not both")
        wanted = set(self.baseline[0].names)
        for pattern in (*self.baseline, *self.target):
            if set(pattern.names) != wanted:
                raise ValueError(
                    f"{pattern} captures {set(pattern.names) or 'nothing'}, "
                    f"{self.baseline[0]} captures {wanted or 'nothing'}"
                )
        return self


class MapFile(BaseModel):
    """A whole map."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: Annotated[list[Entry], Field(min_length=1)]


def load_map(path: str | Path) -> MapFile:
    """Read and validate a map; MapError lists every problem at once."""
    try:
        held = read_yaml(path, "map file")
        return MapFile.model_validate(held)
    except UsageError as error:
        raise MapError(error.summary, seen=error.seen) from error
    except ValidationError as error:
        raise MapError(
            f"the map file {path} does not validate",
            seen=problems_of(error),
            expected="rules: a list of {baseline, target, concat or split, steps}",
            do="see docs/map.md",
        ) from error
