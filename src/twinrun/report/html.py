"""The report as one HTML file that opens offline: no request, no eval, everything in it is text."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from twinrun import __version__
from twinrun.comparison.picture import Pictures
from twinrun.comparison.result import Result
from twinrun.errors import TwinrunError
from twinrun.report.composition import compared
from twinrun.report.document import Document, Section
from twinrun.report.page import Field
from twinrun.report.payload import payload

if TYPE_CHECKING:
    from twinrun.diagnosis.finding import Finding

SCRIPTS = (
    "data", "marks", "filter", "chart", "markers", "tree", "list", "pictures", "detail", "page",
)  # fmt: skip
"""The page's own scripts, in the order in which they are read."""
_SHORT = 24
SYMBOLS = {"good": "\u2713", "bad": "\u2715", "unsure": "?", "plain": "\u00b7"}


def write_report(
    path: str | Path,
    result: Result,
    finding: Finding | None = None,
    paths: bool = False,
    pictures: Pictures | None = None,
) -> int:
    """Write the report of ``result``, and of ``finding`` where there is one; return its bytes.

    Without ``paths`` no host name and no path is in it. Raises TwinrunError where the file cannot be
    written.
    """
    text = page(document_of(result, finding, paths, pictures)).encode("utf-8")
    try:
        Path(path).write_bytes(text)
    except OSError as error:
        raise TwinrunError(
            f"the report {str(path)!r} cannot be written", seen=error.strerror or str(error),
            do="give --report a file in a directory that exists and can be written",
        ) from error  # fmt: skip
    return len(text)


def document_of(
    result: Result, finding: Finding | None, paths: bool, pictures: Pictures | None
) -> Document:
    """What the report holds, before it is drawn."""
    if finding is None:
        return compared(result, pictures, paths)
    from twinrun.report.blamed import blamed

    return blamed(result, finding, pictures, paths)


def page(document: Document) -> str:
    """The whole page. Only scripts and styles whose hashes it names may run or apply."""
    chart, script, style = asset("uplot.min.js"), _script(), asset("uplot.min.css") + _style()
    policy = (
        f"default-src 'none'; script-src {_hash(chart)} {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    filled = {
        "POLICY": html.escape(policy),
        "TITLE": html.escape(document.title),
        "VERSION": html.escape(__version__),
        "STYLE": style,
        "OPENING": _opening(document),
        "RUNS": _runs(document),
        "DATA": payload(document),
        "CHART": chart,
        "SCRIPT": script,
    }
    parts = asset("report.html").split("%%")
    # Every second part is a name: what is filled in is never searched for names again.
    return "".join(filled[part] if at % 2 else part for at, part in enumerate(parts))


@cache
def asset(name: str) -> str:
    """A file of the page, as text."""
    found = resources.files("twinrun.report") / "assets" / name
    return found.read_text(encoding="utf-8")


def _script() -> str:
    parts = "\n".join(asset(f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


def _style() -> str:
    return "\n".join(asset(f"{name}.css") for name in ("colours", "report", "print"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _opening(document: Document) -> str:
    """The verdict as static HTML: it is there before any script runs, and without one."""
    lead, *others = [_section(one, at == 0) for at, one in enumerate(document.sections)]
    return "".join((lead, _closing(document), *others))


def _section(one: Section, leads: bool) -> str:
    level = 1 if leads else 2
    parts = "".join(f"<span>{html.escape(part)}</span>" for part in one.parts[1:])
    about = _breakable(one.parts[0]) if one.parts else ""
    kind = " sentence" if one.parts and " " in one.parts[0] else ""
    if one.position:
        about = f'<a href="#p={one.position}">{about}</a>'
    return (
        f'<section class="verdict {one.tone}{" lead" if leads else ""}">'
        f'<p class="words"><span class="symbol" aria-hidden="true">{SYMBOLS[one.tone]}</span> '
        f"{html.escape(one.words)}</p>"
        f'<h{level} class="about{kind}">{about}</h{level}><p class="parts">{parts}</p>'
        f"{facts(one.fields)}</section>"
    )


def _breakable(name: str) -> str:
    """A name that may break after its separators; its text stays the same."""
    return html.escape(re.sub(r"([.:])", "\\1\0", name)).replace("\0", "<wbr>")


def _closing(document: Document) -> str:
    told = facts(document.closing)
    lines = "".join(f"<li>{_pasted(line)}</li>" for line in document.next)
    follow = f'<h2>Next</h2><ul class="next">{lines}</ul>' if lines else ""
    return f'<section class="follow">{told}{follow}</section>' if told or follow else ""


def _pasted(line: str) -> str:
    escaped = html.escape(line)
    if not line.startswith("twinrun "):
        return f"<p>{_unbroken(line)}</p>"
    return f'<code>{escaped}</code><button type="button" class="copy" hidden>Copy</button>'


def _runs(document: Document) -> str:
    """Both runs and what is to be known about them, static like the verdict."""
    cards = "".join(
        f'<section class="run"><h2>{html.escape(run.label)}</h2>{facts(run.fields)}</section>'
        for run in document.runs
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in document.notes)
    return f'{cards}<ul class="notes">{notes}</ul>' if notes else cards


def facts(fields: Iterable[Field]) -> str:
    """Labelled statements as a description list; a field without a label continues the one above."""
    rows = []
    for field in fields:
        lines = "".join(f"<dd>{_line(line, field.verbatim)}</dd>" for line in field.lines)
        label = f'<dt class="{field.tone}">{html.escape(field.label)}</dt>' if field.label else ""
        rows.append(f"{label}{lines}")
    return f'<dl class="facts">{"".join(rows)}</dl>' if rows else ""


def _line(line: str, verbatim: bool) -> str:
    return f"<code>{html.escape(line)}</code>" if verbatim else _unbroken(line)


def _unbroken(line: str) -> str:
    """Text whose figures and options (``9.3e-7``, ``--mesh``) do not break at their hyphens."""
    parts = re.split(r"(\S*-\S*)", line)
    return "".join(
        f'<span class="whole">{html.escape(part)}</span>'
        if at % 2 and len(part) <= _SHORT
        else html.escape(part)
        for at, part in enumerate(parts)
    )
