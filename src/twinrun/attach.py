"""``import twinrun.attach``: the first line of a worker that ``twinrun run`` does not start.

Ray actors, servers and jobs on an existing cluster inherit no environment from ``twinrun run``. Give
them the variables that ``twinrun run --print-env`` prints, and this import makes them join.
"""

from __future__ import annotations

from twinrun.env import check
from twinrun.env import variables as V
from twinrun.errors import UsageError
from twinrun.recorder.joining import join

check()
if V.OUT.get() is None:
    raise UsageError(
        "import twinrun.attach: this process does not know which run to join.",
        seen="TWINRUN_OUT is not set",
        expected="the variables that 'twinrun run --out DIR --print-env' prints",
        do="set them in the worker's environment before this import",
    )
join()
