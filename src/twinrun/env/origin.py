"""Where a variable's value came from, and how that travels to child processes.

A value set by a rule or a flag is written to the environment like any other, so that every child
sees it. Beside it ``TWINRUN_ORIGINS`` holds, for each such name, the text that was written and who
wrote it. An entry counts only while the variable still holds that very text: when a script further
down exports another value, that value is the user's again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from twinrun.errors import VariableError

ORIGINS = "TWINRUN_ORIGINS"
_KINDS = ("flag", "rule", "program")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who gave a variable its value.

    ``kind`` is ``default``, ``environment``, ``flag``, ``rule`` (a launch rule) or ``program``
    (``set()`` without a source); ``detail`` is the rule's or the flag's name. ``asked`` is the text
    that the user had given before a rule replaced it, or None where the user gave none.
    """

    kind: str
    detail: str = ""
    asked: str | None = None

    @property
    def by_user(self) -> bool:
        """Whether the user gave this variable a value, even one that a rule replaced later."""
        if self.kind == "rule":
            return self.asked is not None
        return self.kind != "default"

    def __str__(self) -> str:
        if self.kind != "rule":
            return f"{self.kind} {self.detail}".rstrip()
        asked = "you had not set it" if self.asked is None else f"you had set {self.asked!r}"
        return f"launch rule {self.detail} ({asked})"


DEFAULT = Origin("default")
ENVIRONMENT = Origin("environment")


def origin_of(name: str, environ: Mapping[str, str]) -> Origin:
    """The origin of the value that ``name`` holds in ``environ``."""
    text = environ.get(name)
    if text is None:
        return DEFAULT
    entry = read_origins(environ).get(name)
    if entry is None or entry[0] != text:
        return ENVIRONMENT
    return Origin(entry[1], entry[2] or "", entry[3])


def note(name: str, text: str, origin: Origin, environ: MutableMapping[str, str]) -> None:
    """Write ``text`` into ``environ`` together with where it came from."""
    before = origin_of(name, environ)
    asked = before.asked if before.kind == "rule" else environ.get(name)
    kept = asked if origin.kind == "rule" and before.by_user else None
    entries = read_origins(environ)
    entries[name] = (text, origin.kind, origin.detail, kept)
    environ[name] = text
    environ[ORIGINS] = json.dumps(entries, separators=(",", ":"))


def forget(name: str, environ: MutableMapping[str, str]) -> None:
    """Remove ``name`` and what is known of its origin."""
    environ.pop(name, None)
    entries = read_origins(environ)
    if entries.pop(name, None) is None:
        return
    if entries:
        environ[ORIGINS] = json.dumps(entries, separators=(",", ":"))
    else:
        environ.pop(ORIGINS, None)


Entry = tuple[str, str, "str | None", "str | None"]


def read_origins(environ: Mapping[str, str]) -> dict[str, Entry]:
    """Every entry of ``TWINRUN_ORIGINS``; ``VariableError`` where it is not what Twinrun wrote."""
    text = environ.get(ORIGINS)
    if text is None:
        return {}
    try:
        loaded = json.loads(text)
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict) or not all(_is_entry(entry) for entry in loaded.values()):
        raise VariableError(
            f"{ORIGINS} does not parse.",
            seen=text[:200],
            expected="what Twinrun itself wrote there for its child processes",
            do=f"unset {ORIGINS}",
        )
    return {name: (row[0], row[1], row[2], row[3]) for name, row in loaded.items()}


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 4:
        return False
    text, kind, detail, asked = entry
    words = isinstance(text, str) and isinstance(detail, str) and kind in _KINDS
    return words and (asked is None or isinstance(asked, str))
