"""What holds for every test: nothing is timed, on a machine that others use too."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("twinrun", deadline=None)
settings.load_profile("twinrun")
