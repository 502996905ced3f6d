"""The verdict of a page for the terminal as sections of the report: the same words in both."""

from __future__ import annotations

from twinrun.report.document import Section
from twinrun.report.page import Field, Fields, Headline, Page
from twinrun.report.privacy import Privacy


def opening(page: Page, privacy: Privacy) -> tuple[tuple[Section, ...], tuple[Field, ...]]:
    """A section for each headline, and the fields that belong to none. Tables stay on the terminal."""
    sections: list[Section] = []
    closing: list[Field] = []
    under = False
    for block in page:
        if isinstance(block, Headline):
            parts = tuple(map(privacy.text, block.parts))
            sections.append(Section(block.words, parts, block.tone))
            under = True
        elif isinstance(block, Fields) and under and block.indent:
            one = sections[-1]
            kept = tuple(clean(field, privacy) for field in block.fields)
            sections[-1] = Section(one.words, one.parts, one.tone, (*one.fields, *kept))
        elif isinstance(block, Fields) and under:
            closing += [clean(field, privacy) for field in block.fields if not _lists(field)]
    return tuple(sections), tuple(closing)


def clean(field: Field, privacy: Privacy) -> Field:
    """A field without what is private."""
    lines = map(privacy.advice if field.verbatim else privacy.text, field.lines)
    return Field(field.label, tuple(lines), field.tone, field.verbatim)


def _lists(field: Field) -> bool:
    """How many entries of a list are left out: the report leaves none out."""
    return field.label.startswith("  and ") or field.label == "next"
