"""The group of commands: one module a command, imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import wraps
from importlib import import_module
from typing import Any

import click

from twinrun.env import check


class Broken(Exception):
    """An OSError of a command, carried past click to the entry point."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class CommandGroup(click.Group):
    """A click group whose commands are the ``command`` attributes of this package's modules.

    ``summaries`` maps a command's name to the first sentence of its help, in the help's order. A command's
    callback returns its exit code, or None for 0. The ``TWINRUN_*`` variables are checked before any
    command runs, except those that take no notice of them (``unchecked``), so that help and usage
    errors never depend on the environment.
    """

    def __init__(
        self, *, summaries: Mapping[str, str], unchecked: frozenset[str] = frozenset(), **rest: Any
    ) -> None:
        super().__init__(**rest)
        self.summaries = dict(summaries)
        self.unchecked = unchecked

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.summaries:
            return None
        if cmd_name not in self.commands:
            command: click.Command = import_module(f"{__package__}.{cmd_name}").command
            if cmd_name not in self.unchecked and command.callback is not None:
                command.callback = _checked(command.callback)
            self.commands[cmd_name] = command
        return self.commands[cmd_name]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with its summary, whole, and without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            # click ends the process with 1 when a pipe breaks, which would say "a difference".
            raise Broken(error) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.summaries and not name.startswith("-"):
            near = get_close_matches(name, self.summaries, n=1)
            told = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {name!r}.{told}", ctx)
        return super().resolve_command(ctx, args)


def _checked(callback: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(callback)
    def run(*args: Any, **kwargs: Any) -> Any:
        check()
        return callback(*args, **kwargs)

    return run
