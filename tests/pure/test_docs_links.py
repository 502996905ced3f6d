"""The pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from twinrun.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    """A relative link names a file that is there."""
    wrong = [
        to
        for to in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / to).exists()
    ]
    assert not wrong


def test_the_readme_shows_only_commands_that_there_are() -> None:
    """Every command line in the README starts a command that this version has."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^(?:\$ )?twinrun ([a-z]+)", text, re.MULTILINE))
    assert shown
    assert shown <= set(COMMANDS)


def test_the_readme_knows_every_page() -> None:
    """Every page of docs/ is in the README's list."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [
        page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name})" not in text
    ]
    assert not missing
