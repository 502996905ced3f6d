"""The exception tree. Every error says what was seen, what was expected, and what to do."""

from __future__ import annotations


class TwinrunError(Exception):
    """Base of every error that Twinrun raises on purpose.

    ``summary`` is one sentence; ``seen``, ``expected`` and ``do`` are optional further lines.
    ``exit_code`` is what a command ends with when this error reaches it.
    """

    exit_code = 2

    def __init__(
        self,
        summary: str,
        *,
        seen: str | None = None,
        expected: str | None = None,
        do: str | None = None,
    ) -> None:
        super().__init__(summary)
        self.summary = summary
        self.seen = seen
        self.expected = expected
        self.do = do

    def __str__(self) -> str:
        rows = [("seen", self.seen), ("expected", self.expected), ("do", self.do)]
        told = [f"  {label:<9} {text}" for label, text in rows if text]
        return "\n".join([self.summary, *told])


class UsageError(TwinrunError, ValueError):
    """An option, argument or combination of them that cannot be carried out."""


class VariableError(UsageError):
    """One or more ``TWINRUN_*`` variables are unknown or hold a value that does not parse."""


class DimsError(UsageError):
    """A dims text does not parse, or does not fit the tensor it describes."""


class LayoutError(UsageError):
    """Shards do not form one logical tensor: a gap, an overlap, or sizes that disagree."""


class FilterError(UsageError):
    """A filter text does not parse."""


class MapError(UsageError):
    """A map file does not validate, or a rule matches nothing or more than it may."""


class CaptureError(TwinrunError):
    """A run directory cannot be read: missing, empty, cut, foreign, or of a newer format."""


class CaptureExistsError(UsageError):
    """The output directory exists and ``overwrite`` was not given."""


class LaunchError(UsageError):
    """Launch arguments, or the rules applied to them, refuse this launch."""


class UnavailableError(TwinrunError):
    """Something this machine lacks (driver, compiler, peer access); the places looked are named."""


class PeerError(TwinrunError):
    """The other side is missing, stalled, of another version, or disagrees on what is exchanged."""
