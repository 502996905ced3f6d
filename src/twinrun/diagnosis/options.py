"""What blame is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from twinrun.comparison.settings import Settings

SHADOWS = ("auto", "all", "off")


@dataclass(frozen=True, slots=True)
class Wishes:
    """``shadows``: one precision up for what rounding alone cannot settle (auto), for every module that
    gives other bits and below the floor of the comparison too (all), or never (off). ``operators``: look
    inside the suspects. ``gradients``: the backward pass too. ``rounds``: how often at most what is
    left after a proof is looked into again. ``settings`` are compare's own floors
    and K, ``noise`` its runs known to be right.
    """

    shadows: str = "auto"
    operators: bool = True
    gradients: bool = False
    rounds: int = 4
    settings: Settings = field(default_factory=Settings)
    noise: tuple[str, ...] = ()
