"""Run one model twice, on any number of ranks, and keep the two equal or find where they part."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from twinrun.collectives.all_reduce import AllReduce as AllReduce
    from twinrun.comparison.compare import compare as compare
    from twinrun.errors import TwinrunError as TwinrunError
    from twinrun.grafting.api import graft as graft
    from twinrun.numerics.fingerprint import fingerprint as fingerprint
    from twinrun.recorder.api import capture as capture
    from twinrun.recorder.api import dump as dump
    from twinrun.recorder.api import dump_gradients as dump_gradients
    from twinrun.recorder.api import dump_parameters as dump_parameters
    from twinrun.recorder.api import step as step
    from twinrun.recorder.api import tags as tags
    from twinrun.recorder.api import watch as watch

# The public face: a name, and the module that is imported when it is first asked for.
_FACE = {
    "AllReduce": "twinrun.collectives.all_reduce",
    "TwinrunError": "twinrun.errors",
    "capture": "twinrun.recorder.api",
    "compare": "twinrun.comparison.compare",
    "dump": "twinrun.recorder.api",
    "dump_gradients": "twinrun.recorder.api",
    "dump_parameters": "twinrun.recorder.api",
    "fingerprint": "twinrun.numerics.fingerprint",
    "graft": "twinrun.grafting.api",
    "step": "twinrun.recorder.api",
    "tags": "twinrun.recorder.api",
    "watch": "twinrun.recorder.api",
}

__all__ = [*_FACE, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'twinrun' has no attribute {name!r}")
    value = getattr(import_module(_FACE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
