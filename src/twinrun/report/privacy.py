"""Takes paths and host names out of what a report shows, unless they were asked for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from twinrun.report.figures import safe

_HOST_OPTION = re.compile(
    r"^--?[\w-]*?(host|hosts|hostname|addr|address|endpoint|nodelist|node-ip|server|url|ip|store)$"
)
_ADDRESS = re.compile(r"^(\[[0-9a-fA-F:]+\]|[\w.-]*[A-Za-z.][\w.-]*):(\d{3,5})$")
_IP = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_ABSOLUTE = re.compile(r"(?<![\w.:/\\])(?:~[\w-]*|\.{1,2}|[A-Za-z]:)?[/\\][^\s'\"():;,]*")
_RELATIVE = re.compile(r"(?<![\w./\\-])[\w.-]+(?:[/\\][\w.-]+){2,}|(?<![\w./\\-])(?:[\w.-]+[/\\])+[\w-]+\.[A-Za-z]\w*")  # fmt: skip


class Privacy:
    """What becomes of texts. ``places`` maps a path to the word that stands for it."""

    def __init__(self, shown: bool, places: Mapping[str, str], names: Iterable[str] = ()) -> None:
        self.shown = shown
        self._places = {path: word for path, word in places.items() if path}
        self._names = frozenset(names)

    def text(self, sentence: str) -> str:
        """A sentence: known places by their word, other paths by their last part."""
        if self.shown:
            return safe(sentence)
        for path in sorted(self._places, key=len, reverse=True):
            if "/" in path or "\\" in path:
                sentence = sentence.replace(path, self._places[path])
        for pattern in (_ABSOLUTE, _RELATIVE):
            sentence = pattern.sub(lambda found: _last(found.group()), sentence)
        return safe(_IP.sub("HOST", sentence))

    def command(self, line: str) -> str:
        """A command line, word by word."""
        if self.shown:
            return safe(line)
        try:
            words = shlex.split(line)
        except ValueError:
            words = line.split()
        told = []
        for before, word in zip(["", *words], words, strict=False):
            told.append(shlex.quote(self._word(word, bool(_HOST_OPTION.match(before)))))
        return safe(" ".join(told))

    def advice(self, line: str) -> str:
        """A line of advice: a command, or a sentence."""
        return self.command(line) if line.startswith("twinrun ") else self.text(line)

    def _word(self, word: str, of_host: bool) -> str:
        if word in self._places:
            return self._places[word]
        if word in self._names:
            return word
        option, equals, value = word.partition("=")
        if equals and re.fullmatch(r"-{0,2}[\w-]+", option):
            hidden = bool(_HOST_OPTION.match(option)) or option.upper().endswith(("_ADDR", "_HOST"))
            return f"{option}={self._word(value, hidden)}"
        if "://" in word:
            return "URL"
        if found := _ADDRESS.match(word):
            return f"HOST:{found.group(2)}"
        if of_host and not word.startswith("-"):
            return "HOST"
        if "@" in word and "/" not in word:
            return "HOST"
        return _IP.sub("HOST", ",".join(self._part(part) for part in word.split(",")))

    def _part(self, part: str) -> str:
        if any(c.isspace() for c in part):
            return self.text(part)
        return _last(part) if "/" in part or "\\" in part else part


def _last(path: str) -> str:
    """The last part of a path that is not empty."""
    return next((part for part in reversed(re.split(r"[/\\]", path)) if part not in ("", ".", "..", "~")), "PATH")  # fmt: skip
