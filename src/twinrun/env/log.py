"""Twinrun's own log: silent below warnings unless ``TWINRUN_LOG`` names a level."""

from __future__ import annotations

import logging
import sys

from twinrun.env import variables as V

_ROOT = "twinrun"


def logger(room: str) -> logging.Logger:
    """The logger of a room.

    The program's own logging set-up stays its own: a handler is added, once, only where
    ``TWINRUN_LOG`` asks for one.
    """
    level = V.LOG.get()
    if level is not None:
        _print_from(level)
    return logging.getLogger(f"{_ROOT}.{room}")


def _print_from(level: str) -> None:
    root = logging.getLogger(_ROOT)
    root.setLevel(level.upper())
    if not any(getattr(handler, "of_twinrun", False) for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("twinrun: %(levelname)s %(name)s: %(message)s"))
        handler.of_twinrun = True  # type: ignore[attr-defined]
        root.addHandler(handler)
        root.propagate = False
