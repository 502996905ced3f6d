"""What a command line starts: which Python, with which flags, and in what environment."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PYTHON = re.compile(r"^(python|pypy)[0-9.]*(t|d|w)?(\.exe)?$")
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
_SHELL_SYNTAX = re.compile(r"[;&|<>`$()\n]")
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")


@dataclass(frozen=True, slots=True)
class Command:
    """One command as far as it can be read without running it.

    ``environ`` is None for the environment of the process that starts it. ``flag`` is the first of
    ``-I``, ``-E`` and ``-S`` that Python would be given; ``cleaned`` says that ``env -i`` stands
    before it.
    """

    words: tuple[str, ...]
    environ: Mapping[str, str] | None = None
    is_python: bool = False
    flag: str | None = None
    cleaned: bool = False


def interpret(words: Sequence[str], environ: Mapping[str, str] | None = None) -> Command:
    """Read ``words``, looking through ``env``, ``sh -c`` and the first line of scripts."""
    told = tuple(words)
    cleaned = False
    for _ in range(4):
        if not words:
            break
        name = Path(words[0]).name
        if _PYTHON.match(name):
            return Command(told, environ, True, _isolating_flag(words[1:]), cleaned)
        if name == "env":
            cleaned, words, environ = _after_env(words[1:], cleaned, environ)
        elif name in _SHELLS and len(words) > 2 and words[1] == "-c":
            words = _simple_command(words[2])
        else:
            words = _through_first_line(words)
    return Command(told, environ)


def _isolating_flag(words: Sequence[str]) -> str | None:
    takes_value = False
    for word in words:
        if takes_value:
            takes_value = False
            continue
        if not word.startswith("-") or word == "-" or word.startswith("--"):
            return None
        for place, letter in enumerate(word[1:], 1):
            if letter in "IES":
                return f"-{letter}"
            if letter in "cm":
                return None
            if letter in "WX":
                takes_value = place == len(word) - 1
                break
    return None


def _after_env(
    words: Sequence[str], cleaned: bool, environ: Mapping[str, str] | None
) -> tuple[bool, Sequence[str], Mapping[str, str] | None]:
    """What follows ``env [-i] [-u NAME] [NAME=VALUE]...``."""
    rest = list(words)
    while rest and (rest[0].startswith("-") or _ASSIGNMENT.match(rest[0])):
        word = rest.pop(0)
        if word in ("-i", "-", "--ignore-environment"):
            cleaned = True
        elif word in ("-u", "-C") and rest:
            rest.pop(0)
        elif word == "-S" and rest:
            rest[:1] = shlex.split(rest[0])
    return cleaned, rest, environ


def _simple_command(text: str) -> list[str]:
    """The words of a shell text that is one plain command; empty where it is more than that."""
    if _SHELL_SYNTAX.search(text):
        return []
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    while words and (words[0] == "exec" or _ASSIGNMENT.match(words[0])):
        words.pop(0)
    return words


def _through_first_line(words: Sequence[str]) -> list[str]:
    """The interpreter that a script's ``#!`` line names, before the script; empty if it has none."""
    path = shutil.which(words[0])
    if path is None:
        return []
    try:
        with Path(path).open("rb") as script:
            line = script.readline(512)
    except OSError:
        return []
    if not line.startswith(b"#!"):
        return []
    interpreter = line[2:].decode(errors="replace").strip().split(maxsplit=1)
    return [*interpreter, path, *words[1:]]
