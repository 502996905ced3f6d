"""A fact: a value and how it was learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """``value`` as ``how`` says it was learnt, or would have been where it is missing."""

    value: T
    how: str

    def __str__(self) -> str:
        return f"{self.value} ({self.how})"
