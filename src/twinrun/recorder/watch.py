"""``tr.watch``: observe one model's modules, wherever it is called from."""

from __future__ import annotations

from torch import nn

from twinrun.errors import UsageError
from twinrun.recorder import boundary, watched
from twinrun.recorder.taps import Taps


def watch(model: nn.Module, taps: str = "blocks") -> Watch:
    """Observe the modules of ``model`` that ``taps`` choose while a capture is open.

    Names begin at the outermost module that is called, as everywhere. ``remove()`` on the answer
    ends it; it is a context manager too. UsageError for taps that do not parse.
    """
    return Watch(model, taps)


class Watch:
    """A watched model; ``remove()`` ends it, as does the model's own end."""

    def __init__(self, model: nn.Module, taps: str = "blocks") -> None:
        if not isinstance(model, nn.Module):
            raise UsageError(
                f"watch takes a torch.nn.Module, not a {type(model).__name__}",
                do="dump() observes a single tensor",
            )
        self._row = watched.add(model, Taps.parse(taps))
        boundary.install()
        boundary.choose_again()

    def remove(self) -> None:
        """Watch no longer; a second call does nothing."""
        watched.remove(self._row)
        boundary.choose_again()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
