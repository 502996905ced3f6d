"""The environment of this process, for code that takes one as an argument."""

from __future__ import annotations

import os
from collections.abc import Mapping


def environment() -> Mapping[str, str]:
    """The variables of this process as they stand now; not a copy."""
    return os.environ
