"""The entry point: find the command, run it, and turn whatever ends it into an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from twinrun import __version__
from twinrun.cli.group import Broken, CommandGroup
from twinrun.errors import TwinrunError

INTERRUPTED = 130
UNREADABLE = 2

COMMANDS = {
    "run": "Run CMD and observe every Python process that it starts, on any number of ranks.",
    "compare": "Find the first tensor in which two runs part, and say how.",
    "graft": "Run two programs and put tensors of one into the other, at the points that a filter names.",
    "blame": "Name the module that computes something else when it is given the same inputs, and prove it.",
    "launch": "Start CMD on every rank of this node through torchrun, with a settled environment.",
    "show": "List what the capture in DIR holds; with NAME, show one tensor.",
    "doctor": "Say what this machine is, which all-reduce would be used at each size, why, and what to change.",
    "env": "List the variables that Twinrun reads, with value and source.",
    "bench": "Measure what this machine reaches.",
    "demo": "Plant a fault in a small tensor-parallel model and find it.",
}
"""Every command, in the order of the help, with the first sentence of its own help: a table, so that
`twinrun --help` imports none of them. A command's module is the one of its name in this package."""


@click.group(
    cls=CommandGroup,
    summaries=COMMANDS,
    unchecked=frozenset({"env"}),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 agreement, 1 a difference, 2 no work could be done, 3 undecided (docs/cli.md).",
)
@click.version_option(__version__, prog_name="twinrun", message="%(prog)s %(version)s")
def twinrun() -> None:
    """Run one model twice, on any number of ranks, and keep the two equal or find where they part."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run ``twinrun`` with these arguments (the process's own by default); returns the exit code.

    Errors are printed on stderr: what was seen, what was expected, what to do. Errors that are
    not Twinrun's own are bugs and keep their traceback.
    """
    try:
        code = twinrun.main(
            None if arguments is None else list(arguments),
            prog_name="twinrun",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except TwinrunError as error:
        return _say(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        return _say(error.format_message(), UNREADABLE, prefix="")
    except click.ClickException as error:
        return _say(_usage(error), UNREADABLE)
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", INTERRUPTED)
    except (Broken, OSError) as error:
        return _environment(error.error if isinstance(error, Broken) else error)
    return code if isinstance(code, int) else 0


def main() -> None:
    """What the ``twinrun`` script calls."""
    sys.exit(run())


def _environment(error: OSError) -> int:
    """A full disk, a directory that may not be written: the machine's refusal, not a bug."""
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone: what is still buffered goes nowhere, without a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREADABLE
    where = f" {error.filename}" if error.filename else ""
    return _say(f"{error.strerror or error}{where}", UNREADABLE)


def _usage(error: click.ClickException) -> str:
    """A click error in Twinrun's own form, ending in the command that shows the usage."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "twinrun"
    return f"{error.format_message()}\n  {'do':<9} {path} --help"


def _say(text: str, code: int, prefix: str = "twinrun: ") -> int:
    click.echo(f"{prefix}{text}", err=True)
    return code
