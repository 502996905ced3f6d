"""A progress bar for what takes long: on a terminal only, and gone when the work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from twinrun.report.figures import safe

Told = Callable[[int, int, str], None]
"""Called as ``told(done, total, name)`` after each piece of work."""


@contextmanager
def bar(stream: TextIO, title: str) -> Iterator[Told | None]:
    """A bar on ``stream`` while the block runs; None where nobody would see it move."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(title, total=None, name="")

        def told(done: int, total: int, name: str) -> None:
            progress.update(task, completed=done, total=total, name=safe(name))

        yield told
