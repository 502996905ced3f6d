"""What Python runs first in every process that `twinrun run` reaches; parses on any Python.

Its directory is the first one of PYTHONPATH and holds nothing else, so that nothing of the
program's own is shadowed. A `sitecustomize` further down the path still runs, exactly once.
"""
# mypy: ignore-errors
# ruff: noqa
# Python 2.7 must parse this, and nothing of Twinrun's is importable yet: the rules do not fit it.

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _arrive():
    if not os.environ.get("TWINRUN_OUT"):
        return
    if sys.version_info < (3, 10):
        _step_aside("Python %d.%d is older than 3.10" % sys.version_info[:2])
        return
    path = os.path.join(os.path.dirname(_HERE), "arrival.py")
    name = "_twinrun_arrival"
    import importlib.machinery

    # By path, not by package: a process that never imports torch loads these two files and no more.
    loader = importlib.machinery.SourceFileLoader(name, path)
    module = type(sys)(name)
    module.__file__ = path
    sys.modules[name] = module
    loader.exec_module(module)
    module.arrive()


def _step_aside(reason):
    """Leave a note for `twinrun run`, the only trace of a process that is not observed."""
    import json

    directory = os.environ.get("TWINRUN_NOTES")
    if not directory:
        return
    line = {"kind": "aside", "pid": os.getpid(), "argv": getattr(sys, "argv", []), "reason": reason}
    with open(os.path.join(directory, "%d.jsonl" % os.getpid()), "a") as notes:
        notes.write(json.dumps(line) + "\n")


def _run_next():
    """Run the `sitecustomize` that this file stands in front of, as Python itself would have."""
    kept = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
    sys.path[:] = kept
    own = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        # Only its absence is silent: an import that fails inside it is the program's to see.
        if getattr(error, "name", "sitecustomize") != "sitecustomize":
            raise
    finally:
        sys.modules.setdefault("sitecustomize", own)


try:
    _arrive()
except Exception as error:
    # The program must run whatever happens to its observer; the note says what was lost.
    try:
        _step_aside("the boot file failed: %r" % (error,))
    except (OSError, IOError):
        pass
_run_next()
