"""What to record: the options of one capture, as ``run.json`` carries them to every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from twinrun.errors import UsageError
from twinrun.layout.mesh import parse_axes
from twinrun.recorder.filter import parse_filter
from twinrun.recorder.steps import Steps

MODES = ("values", "stats")
LEAST_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a capture; each text is checked when the object is made (UsageError).

    ``taps`` is one of blocks, modules, leaves, none, or globs over module paths with commas.
    ``shadow`` and ``operators`` are globs over module paths with commas, ``perturb`` a seed (0: off):
    the instruments of docs/run.md, which only ``twinrun run`` has. ``buffer_bytes`` bounds the staging memory of each process, ``max_bytes`` the payload and index
    bytes of the whole directory (0: no bound). ``mesh`` names the rank grid, ``dp=2,tp=2``. ``natives``
    are globs over module paths with commas: what passes their boundaries before a graft replaces it
    is recorded too. ``aliases`` is a JSON file of own names with those that the other run of a graft uses.
    """

    filter: str = ""
    steps: str = ""
    mode: str = "values"
    taps: str = "blocks"
    gradients: bool = False
    parameters: bool = False
    mesh: str = ""
    max_bytes: int = 0
    buffer_bytes: int = 256 << 20
    shadow: str = ""
    operators: str = ""
    perturb: int = 0
    own_gradients: bool = False
    natives: str = ""
    aliases: str = ""

    def __post_init__(self) -> None:
        parse_filter(self.filter)
        Steps.parse(self.steps)
        parse_axes(self.mesh)
        if self.mode not in MODES:
            raise UsageError(f"mode {self.mode!r} is unknown", expected=" or ".join(MODES))
        if self.buffer_bytes < LEAST_BUFFER:
            raise UsageError(
                f"a staging buffer of {self.buffer_bytes} bytes is too small",
                expected=f"at least {LEAST_BUFFER} bytes (1 MiB)",
            )
        for name, globs in (("shadow", self.shadow), ("operators", self.operators)):
            if globs and not all(glob.strip() for glob in globs.split(",")):
                raise UsageError(
                    f"{name} {globs!r} holds an empty name", expected="globs with commas"
                )
        if self.perturb < 0:
            raise UsageError(
                f"perturb {self.perturb} is negative", expected="a seed, or 0 for none"
            )
        if self.max_bytes < 0:
            raise UsageError(f"max_bytes {self.max_bytes} is negative", expected="0 or more")

    @property
    def instruments(self) -> bool:
        """Whether the program's calls are to be instrumented, not only observed."""
        return bool(self.shadow or self.operators or self.perturb or self.own_gradients)

    def to_json(self) -> dict[str, Any]:
        """The options as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Options:
        """The options of a JSON object; UsageError for an unknown name or a wrong type."""
        known = {row.name: type(row.default) for row in fields(cls)}
        for name, held in value.items():
            if name not in known:
                raise UsageError(f"option {name!r} is unknown", expected=", ".join(known))
            if type(held) is not known[name]:
                raise UsageError(
                    f"option {name!r} holds {held!r}", expected=f"a {known[name].__name__}"
                )
        return cls(**value)
