"""Everything that is wrong with the environment, in one error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches

from twinrun.env.registry import declared
from twinrun.errors import VariableError

_PREFIX = "TWINRUN_"


def problems(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """One sentence for each unknown ``TWINRUN_*`` name and each value that does not parse."""
    held = os.environ if environ is None else environ
    unknown = [_unknown(name) for name in sorted(held) if _is_unknown(name)]
    return (*unknown, *_unparsed(held))


def check(environ: Mapping[str, str] | None = None) -> None:
    """Raise one ``VariableError`` that names every problem; nothing when there is none.

    Called when a command starts and when a process begins to be observed.
    """
    found = problems(environ)
    if not found:
        return
    if len(found) == 1:
        raise VariableError(found[0], do="twinrun env lists every variable (docs/env.md)")
    raise VariableError(
        f"{len(found)} variables are wrong.",
        seen=("\n" + " " * 12).join(found),
        do="twinrun env lists every variable (docs/env.md)",
    )


def _is_unknown(name: str) -> bool:
    return name.startswith(_PREFIX) and name not in declared()


def _unknown(name: str) -> str:
    ours = [known for known in declared() if known.startswith(_PREFIX)]
    near = get_close_matches(name, ours, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else "no variable of Twinrun has a name like it"
    return f"{name} is not a variable of Twinrun; {hint}"


def _unparsed(held: Mapping[str, str]) -> list[str]:
    found = []
    for variable in declared().values():
        # Another program's variable is judged only where a value of it is needed.
        if not variable.ours:
            continue
        try:
            variable.get(held)
            variable.source(held)
        except VariableError as error:
            if error.seen and error.expected and error.seen.startswith(variable.name):
                found.append(f"{error.seen}: expected {error.expected}")
            elif variable.internal:
                found.append(error.summary)
    return found
