"""The environment that a child process would inherit."""

from __future__ import annotations

import os


def inherited() -> dict[str, str]:
    """A copy of this process's environment, to change and hand to a child."""
    return dict(os.environ)
