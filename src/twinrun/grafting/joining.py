"""A process joins a graft: from its environment under ``twinrun run``, or at its first ``tr.graft``."""

from __future__ import annotations

import atexit
import os
import sys
from multiprocessing import util
from pathlib import Path
from typing import Any, cast

import torch

from twinrun.env import variables as V
from twinrun.errors import TwinrunError
from twinrun.grafting.bystander import Bystander
from twinrun.grafting.journal import Journal
from twinrun.grafting.point import Rank
from twinrun.grafting.seam import Seam
from twinrun.grafting.session import Session
from twinrun.grafting.settings import Settings
from twinrun.recorder.core import Recorder, activate, active
from twinrun.recorder.rank import standing

_session: Session | None = None
_seam: Seam | None = None
_asked = False


def current() -> Session | None:
    """This process's graft, made from ``TWINRUN_GRAFT_*`` when it is first asked for; None without one."""
    global _asked, _session
    if _session is None and not _asked:
        _asked = True
        if V.GRAFT_ROLE.get() is not None:
            session = _open({})
            if active() is None:
                _stand_in(session)
    return _session


def join(recorder: Recorder) -> bool:
    """Called where a process begins to be observed: graft at its boundaries if it was asked to.

    Settings that are wrong are told, and counted as a graft that ended; the program goes on.
    """
    global _asked, _seam
    if V.GRAFT_ROLE.get() is None:
        return False
    _asked = True
    directory = Path(recorder.path) / "graft"
    try:
        session = _open({"journal": str(directory), "mesh": recorder.options.mesh})
    except TwinrunError as error:
        journal = Journal(Rank(V.GRAFT_ROLE.get() or "", standing().rank), "full", directory)
        journal.say(f"nothing is grafted: {error}")
        journal.summary(error.summary)
        return False
    _seam = Seam(session, recorder)
    _seam.install()
    return True


def _stand_in(session: Session) -> None:
    """Where nothing records, something must still count steps and hear dumps."""
    global _seam
    bystander = cast(Recorder, Bystander())
    activate(bystander)
    _seam = Seam(session, bystander)
    _seam.install(boundaries=False)


def _open(defaults: dict[str, Any]) -> Session:
    global _session
    settings = Settings.from_environment(**defaults)
    if settings.source:
        from twinrun.grafting.offline import open_capture_source

        _session = Session(settings, open_source=open_capture_source, started=_at_exit)
    else:
        _session = Session(settings, started=_at_exit)
    return _session


def _at_exit() -> None:
    """This process is a rank: it says goodbye when it ends."""
    atexit.register(_leave)
    # Workers of multiprocessing leave without atexit, but run their finalizers.
    util.Finalize(None, _leave, exitpriority=10)


def _leave() -> None:
    global _session
    session, _session = _session, None
    if session is None:
        return
    if _seam is not None:
        _seam.remove()
    crashed = getattr(sys, "last_type", None) is not None
    session.close(crashed=crashed)


def _in_child() -> None:
    """A child that a rank forks is no rank: it must not speak on its parent's connections.

    Where the parent had not joined, it is a launcher, and the child may be the rank.
    """
    global _asked, _session, _seam
    if _session is None or not _session.running:
        return
    if _seam is not None:
        _seam.remove()
    _session.abandon()
    _session, _seam, _asked = None, None, True


def recorder() -> Recorder | None:
    """The recorder that observes this process, if one does."""
    return active()


def is_compiling() -> bool:
    """Whether torch.compile traces the caller: nothing can be grafted inside a graph."""
    return torch.compiler.is_compiling()


os.register_at_fork(after_in_child=_in_child)
