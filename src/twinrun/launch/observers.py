"""What is observed or grafted around this launch, held against the rest of it."""

from __future__ import annotations

from twinrun.launch import conflicts
from twinrun.launch.state import State
from twinrun.launch.wants import gather

RULE = "launch.observers"


def settle_observers(state: State) -> None:
    """Refuse every pair of options that cannot work together, all at once.

    Here and not with the collectives, because only now is it known what observes the run.
    """
    wants = gather(state.args, state.environ, state.observers)
    for row in conflicts.met(wants):
        state.refuse(conflicts.RULE, str(row), row.do)
    mode = state.observers.mode
    if mode:
        state.decide(RULE, "debug", f"the run is observed ({mode}); workers inherit the capture")
