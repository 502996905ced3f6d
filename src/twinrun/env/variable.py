"""One declared variable: its kind, default and help, and what its value is and where from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from twinrun.env.kinds import Kind
from twinrun.env.origin import ORIGINS, Origin, forget, note, origin_of
from twinrun.errors import VariableError

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, slots=True, eq=False)
class Variable(Generic[T, D]):
    """A variable of the environment, read only when asked.

    ``T`` is the type of a value, ``D`` of the default (``None`` for a variable that has none).
    Every method takes ``environ``: a mapping to read or write instead of the process's own.
    """

    name: str
    kind: Kind[T]
    default: D
    room: str
    help: str
    unit: str = ""

    def get(self, environ: Mapping[str, str] | None = None) -> T | D:
        """Its value, or the default; ``VariableError`` where its text does not parse."""
        text = (os.environ if environ is None else environ).get(self.name)
        if text is None:
            return self.default
        try:
            return self.kind.parse(text)
        except ValueError as wanted:
            raise VariableError(
                f"{self.name} holds a value that does not parse.",
                seen=f"{self.name}={text!r}",
                expected=str(wanted),
                do=f"give it such a value, or unset it ({self.help})",
            ) from None

    def is_set(self, environ: Mapping[str, str] | None = None) -> bool:
        """Whether the user set it; a rule that set or replaced it does not change the answer."""
        return self.source(environ).by_user

    def source(self, environ: Mapping[str, str] | None = None) -> Origin:
        """Where its value came from."""
        return origin_of(self.name, os.environ if environ is None else environ)

    def set(
        self,
        value: T,
        source: Origin = Origin("program"),  # noqa: B008 - frozen
        environ: MutableMapping[str, str] | None = None,
    ) -> None:
        """Set it for this process and every child it starts, together with ``source``."""
        text = self.kind.render(value)
        try:
            self.kind.parse(text)
        except ValueError as wanted:
            raise VariableError(
                f"{self.name} cannot hold {value!r}.", seen=repr(value), expected=str(wanted)
            ) from None
        note(self.name, text, source, os.environ if environ is None else environ)

    def clear(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Unset it, so that its default holds."""
        forget(self.name, os.environ if environ is None else environ)

    @contextmanager
    def override(self, value: T, environ: MutableMapping[str, str] | None = None) -> Iterator[None]:
        """Hold ``value`` inside the block; what was there before comes back, also on an error."""
        held = os.environ if environ is None else environ
        before = held.get(self.name), origin_of(self.name, held)
        self.set(value, environ=held)
        try:
            yield
        finally:
            self._restore(*before, held)

    def _restore(self, text: str | None, origin: Origin, held: MutableMapping[str, str]) -> None:
        forget(self.name, held)
        if text is None:
            return
        if origin.asked is not None:
            held[self.name] = origin.asked
        if origin.kind == "environment":
            held[self.name] = text
        else:
            note(self.name, text, origin, held)

    @property
    def ours(self) -> bool:
        """Whether it is Twinrun's own, not one of torchrun's, Slurm's, Open MPI's or CUDA's."""
        return self.name.startswith("TWINRUN_")

    @property
    def internal(self) -> bool:
        """Whether Twinrun writes it for its own children, so that users never set it."""
        return self.name == ORIGINS
